//! The programs of the pages, as a reader sees them: without the lines that are hidden there.

#[allow(dead_code)] // Its other half serves the README.
#[path = "../../shapes/tests/fresh/project.rs"]
mod project;

#[test]
fn the_pages_programs_compile_as_they_are_shown() {
    let pages = ["ambient_context", "async_openai", "genai", "rig"];
    let pages = pages.map(|page| format!("recipes/{page}"));
    assert_eq!(
        project::build_as_shown(&pages.each_ref().map(String::as_str)),
        8
    );
}
