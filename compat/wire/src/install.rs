//! Installs the newest clients from the npm registry into the target directory.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// An installed program, and the command that runs it.
#[derive(Debug)]
pub struct Installed {
    pub version: String,
    pub command: Vec<PathBuf>,
}

/// Runs a command for at most five minutes, and returns its output.
async fn run(command: &mut Command) -> Result<String> {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(Duration::from_secs(300), command.output()).await;
    let output = output.context("not done after five minutes")?;
    let program = command.as_std().get_program().to_string_lossy();
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let mut lines = text
        .lines()
        .map(|line| line.trim_start_matches("npm error").trim());
    let line = lines.find(|line| line.contains(' ') && !line.starts_with("code "));
    bail!("{}", line.unwrap_or("it failed and did not say why"));
}

/// Installs a package from npm without running its scripts, so that only the registry is contacted.
async fn npm(directory: &Path, package: &str) -> Result<()> {
    fs::create_dir_all(directory)?;
    let mut command = Command::new("npm");
    command
        .args([
            "install",
            "--no-save",
            "--no-package-lock",
            "--ignore-scripts",
            "--omit=dev",
        ])
        .args([
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--prefix",
        ])
        .arg(directory)
        .arg(package);
    run(&mut command).await.map(drop)
}

/// The manifest of an installed package.
fn manifest(directory: &Path, package: &str) -> Result<Value> {
    let path = directory
        .join("node_modules")
        .join(package)
        .join("package.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

fn version(manifest: &Value) -> String {
    manifest["version"]
        .as_str()
        .unwrap_or("of no version")
        .to_owned()
}

/// Unpacks the newest version of a package, without its dependencies.
async fn unpack(directory: &Path, package: &str) -> Result<()> {
    let target = directory.join("node_modules").join(package);
    if target.exists() {
        fs::remove_dir_all(&target)?;
    }
    fs::create_dir_all(&target)?;
    // Without `@latest`, npm takes an older version if this Node.js is too old for the newest.
    let newest = format!("{package}@latest");
    let mut pack = Command::new("npm");
    let pack = pack.args(["pack", "--silent", &newest]);
    let pack = pack.current_dir(&target);
    let archive = run(pack).await?;
    let mut tar = Command::new("tar");
    let tar = tar.args(["-xzf", archive.trim(), "--strip-components=1"]);
    run(tar.current_dir(&target)).await.map(drop)
}

/// Packages of clients that cannot be compared, and why.
const NOT_COMPARED: [(&str, &str); 1] = [(
    "@opencode/cli",
    "opencode's second version, of which there is no capture",
)];

/// Names the newest versions that are not compared, each with the reason.
pub async fn not_compared() -> Vec<String> {
    let mut lines = vec![];
    for (package, reason) in NOT_COMPARED {
        lines.push(match newest(package).await {
            Ok(version) => format!("{package} {version}: {reason}"),
            Err(error) => format!("{package}: {reason}; npm does not have it: {error:#}"),
        });
    }
    lines
}

/// The newest version of a package.
async fn newest(package: &str) -> Result<String> {
    let newest = format!("{package}@latest");
    let mut view = Command::new("npm");
    let version = run(view.args(["view", &newest, "version"])).await?;
    let version = version.trim();
    ensure!(!version.is_empty(), "there is no version of it");
    Ok(version.to_owned())
}

/// Returns an error with the newest version of the package that it is about.
async fn of_newest<T>(package: &str, result: Result<T>) -> Result<T> {
    match result {
        Ok(installed) => Ok(installed),
        Err(error) => Err(match newest(package).await {
            Ok(version) => error.context(format!("{package} {version}")),
            Err(_) => error.context(package.to_owned()),
        }),
    }
}

/// opencode is a single file, in one package for each platform; npm installs those that fit.
pub async fn opencode(directory: &Path) -> Result<Installed> {
    let package = "opencode-ai";
    of_newest(package, install_opencode(directory, package).await).await
}

async fn install_opencode(directory: &Path, package: &str) -> Result<Installed> {
    npm(directory, &format!("{package}@latest")).await?;
    let version = version(&manifest(directory, package)?);
    let mut packages: Vec<_> = fs::read_dir(directory.join("node_modules"))?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/opencode")))
        .filter(|program| program.is_file())
        .collect();
    packages.sort();
    for program in packages {
        let mut command = Command::new(&program);
        command.arg("--version").env_clear().env("HOME", directory);
        if run(&mut command).await.is_ok() {
            return Ok(Installed {
                version,
                command: vec![program],
            });
        }
    }
    bail!("no program in it runs on this platform")
}

/// pi is JavaScript, and needs a recent Node.js: one from npm if this one is older.
pub async fn pi(directory: &Path) -> Result<Installed> {
    let package = "@earendil-works/pi-coding-agent";
    of_newest(package, install_pi(directory, package).await).await
}

async fn install_pi(directory: &Path, package: &str) -> Result<Installed> {
    if let Err(error) = npm(directory, &format!("{package}@latest")).await {
        // Its program is a bundle that includes all it needs.
        println!("pi is unpacked without its dependencies, which cannot be installed: {error:#}");
        unpack(directory, package).await?;
    }
    let manifest = manifest(directory, package)?;
    let version = version(&manifest);
    let package = directory.join("node_modules").join(package);
    let program = manifest["bin"]["pi"]
        .as_str()
        .context("it has no program pi")?;
    let needed = manifest["engines"]["node"].as_str().unwrap_or_default();

    let mut node = PathBuf::from("node");
    let own = run(Command::new("node").arg("--version")).await?;
    if numbers(&own) < numbers(needed) {
        let platform = match env::consts::OS {
            "macos" => "darwin",
            other => other,
        };
        let arch = match env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => other,
        };
        let package = format!("node-{platform}-{arch}");
        let directory = directory.join("node");
        println!("pi {version} needs Node.js {needed}: {package} from npm");
        npm(&directory, &format!("{package}@latest")).await?;
        node = directory
            .join("node_modules")
            .join(package)
            .join("bin/node");
        ensure!(node.is_file(), "there is no Node.js in {}", node.display());
    }
    Ok(Installed {
        version,
        command: vec![node, package.join(program)],
    })
}

/// The numbers of a version such as `v22.1.0`, or of a range such as `>=22.19.0`.
fn numbers(version: &str) -> Vec<u32> {
    let version = version
        .trim()
        .trim_start_matches(|c: char| !c.is_ascii_digit());
    version
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("v20.20.2\n") < numbers(">=22.19.0"));
        assert!(numbers("v22.19.0") >= numbers(">=22.19.0"));
        assert!(numbers("v100.0.0") > numbers(">=22.19.0"));
    }
}
