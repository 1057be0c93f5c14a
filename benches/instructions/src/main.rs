//! Counts instructions and heap allocations under callgrind, prints them as Markdown, draws them
//! into `benches/overhead.svg`, and fails where a bar is missed.

#[path = "../../cases/mod.rs"]
mod cases;

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::ops::Sub;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

use cases::*;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overhead.svg");

/// How often a case runs under callgrind.
const RUNS: u64 = 1000;
const MAKE: &str = "make";
const SEND: &str = "send";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments[..] {
        [] => return report(),
        [name, step] => run(name.trim_end(), step == SEND),
        _ => panic!("run this without arguments"),
    }
    ExitCode::SUCCESS
}

/// What callgrind watches: all that is around the call to measure and, where it `sends`, the call.
fn run(name: &str, sends: bool) {
    if let Some(case) = cases().iter().find(|case| case.name == name) {
        case.around(|| {
            for _ in 0..RUNS {
                let input = black_box(case.input());
                if sends {
                    drop(case.send(input));
                }
            }
        });
    } else {
        let part = PARTS.into_iter().find(|(part, _)| *part == name);
        let mut part = part.expect("the name of a case or a part").1();
        if sends {
            (0..RUNS).for_each(|_| part());
        }
    }
}

#[derive(Clone, Copy)]
struct Cost {
    instructions: u64,
    allocations: u64,
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            instructions: self.instructions - other.instructions,
            allocations: self.allocations - other.allocations,
        }
    }
}

/// What one run costs.
fn cost(name: &str) -> Cost {
    let all = count(name, SEND) - count(name, MAKE);
    Cost {
        instructions: all.instructions / RUNS,
        allocations: all.allocations / RUNS,
    }
}

fn count(name: &str, step: &str) -> Cost {
    let program = env::current_exe().unwrap();
    let profile = program.with_file_name(format!("{name}.{step}.callgrind"));
    let output = valgrind()
        .args(["--tool=callgrind", "--compress-strings=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        // Path and arguments lie on the stack and shift it, and copies cost what their alignment
        // makes them cost: so they are equally long for every case and in every folder.
        .current_dir(program.parent().unwrap())
        .arg(Path::new(".").join(program.file_name().unwrap()))
        .args([&format!("{name:50}"), step])
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{messages}");

    let profile = fs::read_to_string(profile).unwrap();
    let number = |line: &str, key| {
        line.strip_prefix(key)?
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    };
    let calls = profile.lines().zip(profile.lines().skip(1));
    Cost {
        instructions: profile
            .lines()
            .find_map(|line| number(line, "summary: "))
            .unwrap(),
        allocations: calls
            .filter(|(callee, _)| ["cfn=malloc", "cfn=calloc", "cfn=realloc"].contains(callee))
            .filter_map(|(_, calls)| number(calls, "calls="))
            .sum(),
    }
}

/// With no environment, because that lies on the stack, too: see [`count`].
fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear();
    valgrind
}

fn install_valgrind() {
    if valgrind().arg("--version").output().is_err() {
        let install = "sudo=$(command -v sudo); \
            $sudo apt-get update && $sudo apt-get install --yes valgrind";
        let status = Command::new("sh").args(["-c", install]).status().unwrap();
        assert!(
            status.success(),
            "valgrind is missing and could not be installed"
        );
    }
}

type Costs = HashMap<&'static str, Cost>;

fn report() -> ExitCode {
    install_valgrind();
    let mut requests: Vec<_> = cases().iter().map(|case| case.name).collect();
    let parts = PARTS.map(|(name, _)| name);
    let all = requests.iter().chain(&parts);
    let raw: Costs = all.map(|&name| (name, cost(name))).collect();
    assert!(
        raw[GROWTH].allocations > 0,
        "callgrind's profile does not name the allocator's functions"
    );

    // A request costs what it costs over the same request with no middleware.
    let mut costs = raw.clone();
    for &name in &requests {
        let same_request = if name == EXISTING { BY_HAND } else { BARE };
        costs.insert(name, raw[name] - raw[same_request]);
    }
    requests.retain(|&name| name != BARE);

    println!("{}", table("request", &requests, &costs));
    println!("{}", table("part", &parts, &costs));
    fs::write(CHART, chart(&requests, &costs)).unwrap();

    println!("| bar | figure | at most | |\n|---|--:|--:|---|");
    let mut exit = ExitCode::SUCCESS;
    for (bar, figure, limit) in bars(&costs) {
        let verdict = if figure <= limit {
            "reached"
        } else {
            exit = ExitCode::FAILURE;
            "**missed**"
        };
        println!("| {bar} | {figure} | {limit} | {verdict} |");
    }
    exit
}

fn table(title: &str, names: &[&str], costs: &Costs) -> String {
    let mut table = format!("| {title} | instructions | × by hand | allocations |\n");
    table += "|---|--:|--:|--:|\n";
    for name in names {
        let cost = costs[name];
        let ratio = cost.instructions as f64 / costs[BY_HAND].instructions as f64;
        let Cost {
            instructions,
            allocations,
        } = cost;
        writeln!(
            table,
            "| {name} | {instructions} | {ratio:.2} | {allocations} |"
        )
        .unwrap();
    }
    table
}

/// What is asked, the figure, and the most that it may be.
fn bars(costs: &Costs) -> [(&'static str, u64, u64); 11] {
    let instructions = |name: &str| costs[name].instructions;
    let allocations = |name: &str| costs[name].allocations;
    let sources = [
        EXTENSIONS,
        SCOPE,
        FALLBACK,
        OWN_SCOPE,
        LATE_FALLBACK,
        TASK_LOCAL,
    ];
    let dearest = sources.map(instructions).into_iter().fold(0, u64::max);
    let common = sources[..3]
        .iter()
        .copied()
        .map(instructions)
        .fold(0, u64::max);
    let [(of_1, _), _, (of_100, _)] = NO_TARGET;
    [
        (
            "any source: less than the ten-line middleware",
            dearest,
            instructions(TEN_LINES) - 1,
        ),
        (
            "any source: 1.6 × by hand",
            dearest,
            instructions(BY_HAND) * 16 / 10,
        ),
        (
            "any source: no allocation but the header map's own",
            sources.map(allocations).into_iter().fold(0, u64::max),
            allocations(GROWTH),
        ),
        (
            "extensions, scope, fallback: 0.55 × reqwest-retry",
            common,
            instructions(RETRY) * 55 / 100,
        ),
        (
            "extensions, scope, fallback: 0.6 × reqwest-tracing",
            common,
            instructions(TRACING) * 6 / 10,
        ),
        (
            "header already there: less than by hand",
            instructions(EXISTING),
            instructions(BY_HAND) - 1,
        ),
        (
            "no target of 1: less than the empty middleware",
            instructions(of_1),
            instructions(EMPTY) - 1,
        ),
        ("no target of 1: no allocation", allocations(of_1), 0),
        (
            "no target of 100: 15 × no target of 1",
            instructions(of_100),
            instructions(of_1) * 15,
        ),
        ("one poll in a scope", instructions(POLL), 400),
        ("one poll in a scope: no allocation", allocations(POLL), 0),
    ]
}

/// A bar for each request, in colours that stand out from white and from black.
fn chart(names: &[&str], costs: &Costs) -> String {
    let most = names
        .iter()
        .map(|name| costs[name].instructions)
        .max()
        .unwrap();
    let mut chart = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{}">
<title>Instructions per request, over the same request with no middleware</title>
<g font-family="sans-serif" font-size="13" fill="#787878">
"##,
        24 * names.len(),
    );
    for (row, name) in names.iter().enumerate() {
        let instructions = costs[name].instructions;
        let width = instructions * 360 / most;
        let color = if name.starts_with("ours") {
            "#e0701a"
        } else {
            "#787878"
        };
        writeln!(
            chart,
            r##"<g transform="translate(300 {})">
<text x="-8" y="17" text-anchor="end">{name}</text>
<rect y="3" width="{width}" height="18" rx="2" fill="{color}"/>
<text x="{}" y="17">{instructions}</text>
</g>"##,
            24 * row,
            width + 8,
        )
        .unwrap();
    }
    chart + "</g>\n</svg>\n"
}
