//! Counts instructions and heap allocations under callgrind, prints them as Markdown, and fails
//! where a bar is missed. With `--chart` it also draws `benches/overhead.svg`.

#[path = "../../cases/mod.rs"]
mod cases;

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Sub;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;
use std::{env, fs};

use cases::*;

/// How often a case runs under callgrind.
const RUNS: u64 = 1000;
const PREPARE: &str = "prepare";
const CALL: &str = "call";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments[..] {
        [set, name, step] => {
            run(set.trim_end(), name.trim_end(), step == CALL);
            ExitCode::SUCCESS
        }
        filters => report(filters),
    }
}

fn run(set: &str, name: &str, calls: bool) {
    let headers = Headers::ALL.into_iter().find(|h| h.name() == set).unwrap();
    let case = cases(headers).into_iter().find(|case| case.name == name).unwrap();
    case.around(|| {
        for _ in 0..RUNS {
            let call = black_box(case.prepare());
            if calls {
                call();
            }
        }
    });
}

fn report(_: &[String]) -> ExitCode {
    for headers in [Headers::Four, Headers::None] {
        let cases = cases(headers);
        let raw: HashMap<_, _> = cases.iter().map(|c| c.name).collect::<Vec<_>>().into_iter().map(|n| (n, count(headers.name(), n, CALL) as i64 - count(headers.name(), n, PREPARE) as i64)).collect();
        for case in &cases {
            let own = |name: &str| { let c = cases.iter().find(|c| c.name == name).unwrap(); (raw[name] - raw[c.base]) as f64 / 1000.0 };
            println!("{:15} {:50} {:8.0} {:8.2}", headers.name(), case.name, own(case.name), own(case.name) / own(case.peer));
        }
    }
    ExitCode::SUCCESS
}

fn count(set: &str, name: &str, step: &str) -> u64 {
    let program = env::current_exe().unwrap();
    let profile = program.with_file_name(format!("{set}.{name}.{step}.callgrind"));
    let output = Command::new("valgrind").env_clear()
        .args(["--tool=callgrind", "--compress-strings=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .current_dir(program.parent().unwrap())
        .arg(Path::new(".").join(program.file_name().unwrap()))
        .args([&format!("{set:20}"), &format!("{name:50}"), step])
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");
    let profile = fs::read_to_string(profile).unwrap();
    profile.lines().find_map(|l| l.strip_prefix("summary: ")).unwrap().split(' ').next().unwrap().parse().unwrap()
}
