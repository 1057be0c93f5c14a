//! What a stranger copies: each program of the README, and the test beside them, in a new project
//! that has the dependencies of the page and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The code blocks of a page in one language, such as `toml`. Attributes such as `no_run` do not
/// count.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = vec![];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        if info.split(',').next() == Some(language) {
            blocks.push(block.join("\n") + "\n");
        }
    }
    blocks
}

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().unwrap()
}

/// A new project with these dependencies, which takes this crate from the repository.
fn project(name: &str, dependencies: &str) -> PathBuf {
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if project.exists() {
        fs::remove_dir_all(&project).unwrap();
    }
    for folder in ["src/bin", "tests"] {
        fs::create_dir_all(project.join(folder)).unwrap();
    }
    let manifest = format!(
        "[package]\nname = \"{name}\"\nedition = \"2024\"\n\n{dependencies}\n[workspace]\n\n\
         [patch.crates-io]\nreqwest-opencode-session = {{ path = {:?} }}\n",
        repository(),
    );
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    // The versions that these tests were built with, which Cargo has at hand without a network.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    fs::copy(lock, project.join("Cargo.lock")).unwrap();
    project
}

/// Runs cargo there, and returns whether it succeeded, and what it printed.
fn cargo(project: &Path, arguments: &[&str]) -> (bool, String) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(project)
        .env("CARGO_TARGET_DIR", target)
        // As in this package, so that what is compiled already serves here as well.
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

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
        assert!(
            printed.contains("use `http::send`, which adds the session"),
            "{printed}"
        );
    }
}

#[test]
fn the_readme_has_at_most_800_words() {
    let readme = page("README.md");
    let is_link = |line: &&str| line.starts_with('[') && line.contains("]: ");
    let words = readme.lines().filter(|line| !is_link(line));
    assert!(words.flat_map(str::split_whitespace).count() <= 800);
}
