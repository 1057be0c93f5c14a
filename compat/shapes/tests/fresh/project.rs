//! New projects, and the code that pages show.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The code blocks of a page in one language, such as `toml`; those without one are Rust.
pub fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut blocks = vec![];
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let info = info.trim_end_matches("no_run").trim_end_matches(',');
        if info == language {
            blocks.push(block.join("\n") + "\n");
        }
    }
    blocks
}

pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).unwrap()
}

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |folder: &&Path| folder.join("src/docs").exists();
    here.ancestors().find(is_root).unwrap().to_owned()
}

/// A new project with these dependencies, which takes this crate from the repository.
pub fn project(name: &str, dependencies: &str) -> PathBuf {
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
pub fn cargo(project: &Path, arguments: &[&str]) -> (bool, String) {
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

/// This package's dependencies, for a project elsewhere.
fn own_dependencies() -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let (dependencies, _) = rest.split_once("\n[profile").unwrap();
    let is_ours = |line: &&str| line.starts_with("reqwest-opencode-session =");
    let ours = dependencies.lines().find(is_ours).unwrap();
    let path = ours.split('"').nth(1).unwrap();
    let ours = ours.replace(&format!("path = {path:?}"), "version = \"0.1\"");
    let others: Vec<_> = dependencies
        .lines()
        .filter(|line| line.contains(" = ") && !is_ours(line))
        .collect();
    format!("[dependencies]\n{}\n{ours}\n", others.join("\n"))
}

/// Compiles every program of these pages without its hidden lines, with the dependencies of this
/// package, and returns how many there are.
///
/// A program that begins with `mod name;` gets the block before it as that module.
pub fn build_as_shown(pages: &[&str]) -> usize {
    let project = project("as-shown", &own_dependencies());
    fs::write(project.join("src/lib.rs"), "").unwrap();
    let mut programs = 0;
    for name in pages {
        let text = page(&format!("src/docs/{name}.md"));
        let mut module = String::new();
        for (number, block) in blocks(&text, "").into_iter().enumerate() {
            let is_shown = |line: &&str| *line != "#" && !line.starts_with("# ");
            let shown: Vec<_> = block.lines().filter(is_shown).collect();
            let shown = shown.join("\n") + "\n";
            if !shown.contains("fn main()") {
                module = shown;
                continue;
            }
            let program = format!("src/bin/{}-{number}", name.replace('/', "-"));
            let program = project.join(program);
            fs::create_dir(&program).unwrap();
            let needs = shown.lines().find_map(|line| line.strip_prefix("mod "));
            if let Some((needs, _)) = needs.and_then(|needs| needs.split_once(';')) {
                fs::write(program.join(format!("{needs}.rs")), &module).unwrap();
            }
            fs::write(program.join("main.rs"), shown).unwrap();
            programs += 1;
        }
    }
    let (succeeded, printed) = cargo(&project, &["build", "--bins"]);
    assert!(succeeded, "{printed}");
    programs
}
