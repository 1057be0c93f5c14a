//! The recipes show the same files that the other tests run, and count their lines rightly.

use std::fs;
use std::path::{Path, PathBuf};

/// Every file under `src/after`, with the name of its shape.
fn shapes() -> impl Iterator<Item = (String, PathBuf)> {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/after");
    fs::read_dir(files).unwrap().map(|entry| {
        let file = entry.unwrap().path();
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), file)
    })
}

fn page(name: &str) -> String {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src/docs/recipes");
    fs::read_to_string(pages.join(format!("{name}.md"))).expect("each shape has a page")
}

/// The lines of a page's first block of Rust.
fn block(page: &str) -> Vec<&str> {
    let mut lines = page.lines();
    while let Some(fence) = lines.find(|line| line.starts_with("```")) {
        let block = lines.by_ref().take_while(|line| *line != "```").collect();
        if ["```", "```no_run"].contains(&fence) {
            return block;
        }
    }
    panic!("no code");
}

/// The lines of a file, without its documentation, which the page has in its own words.
fn code(file: &str) -> Vec<&str> {
    let is_documentation = |line: &&str| line.starts_with("//!") || line.is_empty();
    file.lines().skip_while(is_documentation).collect()
}

/// Tells apart the lines that adopt the crate, which end in `// new` or follow a comment that
/// begins so, down to the next blank line.
fn new_and_other<'a>(code: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut new, mut other) = (vec![], vec![]);
    let mut in_block = false;
    for line in code.iter().copied() {
        if line.is_empty() {
            in_block = false;
        } else if line.trim_start().starts_with("// new: ") {
            in_block = true;
        } else if in_block || line.ends_with(" // new") {
            new.push(line);
        } else {
            other.push(line);
        }
    }
    (new, other)
}

/// The length of the longest common subsequence.
fn in_common(one: &[&str], other: &[&str]) -> usize {
    let mut row = vec![0; other.len() + 1];
    for line in one {
        let mut diagonal = 0;
        for (at, candidate) in other.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = match line == candidate {
                true => diagonal + 1,
                false => above.max(row[at]),
            };
            diagonal = above;
        }
    }
    row[other.len()]
}

#[test]
fn each_page_shows_the_whole_file_that_runs() {
    let mut count = 0;
    for (name, file) in shapes() {
        let (page, file) = (page(&name), fs::read_to_string(file).unwrap());
        assert_eq!(block(&page), code(&file), "{name}.md");
        assert!(!page.contains("\n# use "), "{name}.md hides lines");
        count += 1;
    }
    assert!(count >= 17, "{count}");
}

#[test]
fn the_page_on_tests_shows_a_whole_test_that_runs() {
    assert_eq!(
        block(&page("testing")),
        code(include_str!("../conformance.rs"))
    );
}

#[test]
fn the_lines_that_are_marked_as_new_are_those_that_differ_and_as_many_as_the_page_says() {
    const NUMBERS: [&str; 26] = [
        "No",
        "One",
        "Two",
        "Three",
        "Four",
        "Five",
        "Six",
        "Seven",
        "Eight",
        "Nine",
        "Ten",
        "Eleven",
        "Twelve",
        "Thirteen",
        "Fourteen",
        "Fifteen",
        "Sixteen",
        "Seventeen",
        "Eighteen",
        "Nineteen",
        "Twenty",
        "Twenty-one",
        "Twenty-two",
        "Twenty-three",
        "Twenty-four",
        "Twenty-five",
    ];
    let mut count = 0;
    for (name, after) in shapes() {
        let before = after.with_file_name("../before").join(format!("{name}.rs"));
        let Ok(before) = fs::read_to_string(before) else {
            continue;
        };
        let after = fs::read_to_string(after).unwrap();
        let (new, kept) = new_and_other(&code(&after));
        let before: Vec<_> = code(&before)
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect();
        let after: Vec<_> = code(&after)
            .into_iter()
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(
            in_common(&before, &kept),
            kept.len(),
            "{name}: some are not marked"
        );
        assert_eq!(
            in_common(&before, &after),
            kept.len(),
            "{name}: too many are marked"
        );
        let says = format!("{} lines", NUMBERS[new.len()]);
        assert!(
            page(&name).contains(&says),
            "{name}.md does not say '{says}'"
        );
        count += 1;
    }
    assert!(count >= 8, "{count}");
}

#[test]
fn the_recipes_list_the_dependencies_that_these_clients_are_built_with() {
    let recipes = include_str!("../../../../src/docs/recipes/mod.rs");
    let manifest = include_str!("../../Cargo.toml");
    let listed = recipes
        .lines()
        .map(|line| line.trim_start_matches("//! "))
        .skip_while(|line| *line != "[dependencies]")
        .take_while(|line| *line != "```");
    let mut count = 0;
    for line in listed.filter(|line| !line.starts_with("reqwest-opencode-session")) {
        assert!(manifest.lines().any(|other| other == line), "{line}");
        count += 1;
    }
    assert!(count >= 10, "{count}");
}
