//! What a stranger copies: the programs of the README and of the guide, each in a new project that
//! has the dependencies of its page and nothing else.

mod project;

use std::fs;

use project::{blocks, cargo, page, project};

/// Builds the README's programs with these dependencies, and runs its test.
fn follow_the_readme(name: &str, dependencies: &str) {
    let project = project(name, dependencies);
    let (mut programs, mut tests) = (0, 0);
    for block in blocks(&page("README.md"), "rust") {
        let file = if block.contains("async fn main()") {
            programs += 1;
            format!("src/bin/program_{programs}.rs")
        } else {
            assert!(block.contains("#[tokio::test]"), "no whole file: {block}");
            tests += 1;
            format!("tests/test_{tests}.rs")
        };
        fs::write(project.join(file), block).unwrap();
    }
    assert_eq!((programs, tests), (3, 1));

    let (succeeded, printed) = cargo(&project, &["test"]);
    assert!(succeeded, "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
    assert!(!printed.contains("warning"), "{printed}");
}

#[test]
fn each_program_of_the_readme_compiles_with_its_dependencies_and_its_test_passes() {
    let dependencies = blocks(&page("README.md"), "toml").join("\n");
    follow_the_readme("readme", &dependencies);
}

#[test]
fn the_readmes_programs_and_test_are_the_same_on_reqwest_0_12() {
    let dependencies = blocks(&page("src/docs/recipes/reqwest_012.md"), "toml").join("\n");
    follow_the_readme("readme-012", &dependencies);
}

/// A project as the page on lints describes it, whose `main` has this line.
fn lint(name: &str, line: &str) -> (bool, String) {
    let page = page("src/docs/recipes/compile_time.md");
    let dependencies = blocks(&crate::page("README.md"), "toml").join("\n");
    let project = project(name, &dependencies);
    fs::write(project.join("clippy.toml"), &blocks(&page, "toml")[0]).unwrap();
    fs::write(project.join("src/http.rs"), &blocks(&page, "")[0]).unwrap();
    let main = format!(
        "mod http;\n\nuse http::OPENCODE;\n\n#[tokio::main]\n\
         async fn main() -> Result<(), Box<dyn std::error::Error>> {{\n    \
         let policy = OPENCODE.redirect_policy();\n    \
         let client = reqwest::Client::builder().redirect(policy).build()?;\n    \
         let url = \"https://opencode.ai/zen/go/v1/chat/completions\";\n    \
         http::send(client.post(url).body(\"an answer, please\")).await?;\n    \
         {line}\n    Ok(())\n}}\n"
    );
    fs::write(project.join("src/main.rs"), main).unwrap();
    cargo(&project, &["clippy", "--", "-D", "warnings"])
}

#[test]
fn clippy_refuses_a_call_that_goes_past_the_function_that_adds_the_session() {
    let (succeeded, printed) = lint("lint", "");
    assert!(succeeded, "{printed}");

    let send = r#"client.post(url).body("a title, please").send().await?;"#;
    let execute = "client.execute(client.post(url).build()?).await?;";
    for (mistake, method) in [
        (send, "reqwest::RequestBuilder::send"),
        (execute, "reqwest::Client::execute"),
    ] {
        let (succeeded, printed) = lint("lint", mistake);
        assert!(!succeeded, "{printed}");
        let says = format!("error: use of a disallowed method `{method}`");
        assert_eq!(printed.matches(&says).count(), 1, "{printed}");
        assert!(printed.contains("note: use `http::send`"), "{printed}");
    }
}

#[test]
fn the_guides_programs_compile_as_they_are_shown() {
    let pages = [
        "sessions",
        "recipes/follow_redirect",
        "recipes/http_trait",
        "recipes/pinned_header",
        "recipes/testing",
    ];
    assert_eq!(project::build_as_shown(&pages), 14);
}

#[test]
fn the_readme_has_at_most_800_words() {
    let readme = page("README.md");
    let is_link = |line: &&str| line.starts_with('[') && line.contains("]: ");
    let words = readme.lines().filter(|line| !is_link(line));
    assert!(words.flat_map(str::split_whitespace).count() <= 800);
}
