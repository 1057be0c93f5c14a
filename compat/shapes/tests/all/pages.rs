//! The recipes show the same files that the other tests run.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The lines of a page's first code block, including the hidden ones.
fn block(page: &str) -> Vec<&str> {
    let block = page.split("```\n").nth(1).expect("a block of code");
    let shown = |line| match line {
        "#" => "",
        line => str::strip_prefix(line, "# ").unwrap_or(line),
    };
    block.lines().map(shown).collect()
}

#[test]
fn each_page_has_the_whole_file_that_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut shapes = 0;
    for entry in fs::read_dir(root.join("src/after")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let page = root.join(format!("../../src/docs/recipes/{name}.md"));
        let page = fs::read_to_string(page).expect("each shape has a page");
        let code = fs::read_to_string(&file).unwrap();
        // Without the first lines, which the page replaces with its own.
        let code = code
            .lines()
            .skip_while(|line| line.starts_with("//!") || line.is_empty());
        for (shown, run) in block(&page).into_iter().zip(code.clone()) {
            assert_eq!(
                shown,
                run,
                "{name}.md shows another line than {}",
                file.display()
            );
        }
        assert_eq!(block(&page).len(), code.count(), "{name}.md");
        shapes += 1;
    }
    assert_eq!(shapes, 15);
}

#[test]
fn each_adoption_takes_no_more_lines_than_promised() {
    let lines = Path::new(env!("CARGO_MANIFEST_DIR")).join("lines");
    let output = Command::new(lines).output().unwrap();
    let counts = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{counts}");
    assert_eq!(counts.lines().count(), 9, "{counts}");
}
