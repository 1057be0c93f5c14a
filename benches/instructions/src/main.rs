//! Counts instructions and heap allocations under valgrind, prints them as Markdown, and fails if a
//! figure is above its bar. With `--chart` it also draws `benches/overhead.svg`.

#[path = "../../cases/mod.rs"]
mod cases;
mod chart;
mod conversations;
mod valgrind;

use std::collections::HashMap;
use std::env;
use std::hint::black_box;
use std::ops::Sub;
use std::process::ExitCode;

use cases::*;
use conversations::CONVERSATIONS;
use reqwest_opencode_session::Session;
use valgrind::Profile;

/// How many times a case runs under callgrind.
const RUNS: u64 = 1000;

/// The set of cases that are parts rather than requests.
const PARTS_ALONE: &str = "parts";

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args()
        .skip(1)
        .map(|a| a.trim_end().to_owned())
        .collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => report(false),
        ["--chart"] => report(true),
        // The report runs these under valgrind.
        [CONVERSATIONS, count] => conversations::run(count.parse().expect("a number")),
        [set, name, step, runs] => {
            run(set, name, *step == CALL, runs.parse().expect("a number"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("the only argument is --chart");
            ExitCode::FAILURE
        }
    }
}

const PREPARE: &str = "prepare";
const CALL: &str = "call";

/// Does everything around the measured calls and, if `calls`, the calls themselves.
fn run(set: &str, name: &str, calls: bool, runs: u64) {
    let Some(headers) = Headers::ALL
        .into_iter()
        .find(|headers| headers.name() == set)
    else {
        let mut parts = PARTS.into_iter();
        let (_, start) = parts
            .find(|(part, _)| *part == name)
            .expect("a part's name");
        let mut part = start();
        if calls {
            (0..runs).for_each(|_| part());
        }
        return;
    };
    // Made once per process, on first use.
    black_box(Session::process());
    // Once per thread, the C library allocates to register the destructor of the application's
    // task-local items.
    black_box(Session::current());
    let mut cases = cases(headers).into_iter();
    let case = cases.find(|case| case.name == name).expect("a case's name");
    case.around(|| {
        for _ in 0..runs {
            let call = black_box(case.prepare());
            if calls {
                call();
            }
        }
    });
}

#[derive(Clone, Copy)]
pub struct Cost {
    pub instructions: u64,
    pub allocations: u64,
    /// Those of the first run of a process.
    pub cold_allocations: u64,
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, base: Self) -> Self {
        Self {
            instructions: self.instructions.saturating_sub(base.instructions),
            allocations: self.allocations.saturating_sub(base.allocations),
            cold_allocations: self.cold_allocations.saturating_sub(base.cold_allocations),
        }
    }
}

/// What one run costs.
fn cost((set, name): (&'static str, &'static str)) -> Cost {
    let [prepare, call] = [PREPARE, CALL]
        .map(|step| [1, RUNS].map(|runs| valgrind::profile(&[set, name, step, &runs.to_string()])));
    let over = |[one, all]: [u64; 2]| all - one;
    let count = |at: usize, of: fn(&Profile) -> u64| over([of(&prepare[at]), of(&call[at])]);
    Cost {
        instructions: count(1, |profile| profile.instructions) / RUNS,
        allocations: count(1, |profile| profile.allocations) / RUNS,
        cold_allocations: count(0, |profile| profile.allocations),
    }
}

/// What the cases of one set cost, each minus its base.
struct Costs {
    cases: Vec<Case>,
    raw: HashMap<&'static str, Cost>,
}

impl Costs {
    fn of(&self, name: &str) -> Cost {
        self.raw[name] - self.raw[self.case(name).base]
    }

    /// What the case's peers cost together.
    fn by_hand(&self, name: &str) -> u64 {
        let peers = self.case(name).peers.iter();
        peers.map(|peer| self.of(peer).instructions).sum()
    }

    fn ratio(&self, name: &str) -> f64 {
        self.of(name).instructions as f64 / self.by_hand(name) as f64
    }

    fn case(&self, name: &str) -> &Case {
        let mut cases = self.cases.iter();
        cases.find(|case| case.name == name).expect("a case's name")
    }
}

fn report(draw: bool) -> ExitCode {
    valgrind::install();
    let sets = Headers::ALL.map(|headers| (headers, cases(headers)));
    let mut all: Vec<_> = (sets.iter())
        .flat_map(|(headers, cases)| cases.iter().map(|case| (headers.name(), case.name)))
        .collect();
    all.extend(PARTS.map(|(part, _)| (PARTS_ALONE, part)));
    let (all_costs, conversations) =
        valgrind::in_parallel(&all, |&case| cost(case), conversations::measure);
    let costs: HashMap<_, _> = all.into_iter().zip(all_costs).collect();
    let parts: HashMap<_, _> = PARTS
        .map(|(part, _)| (part, costs[&(PARTS_ALONE, part)]))
        .into();
    assert!(
        parts[GROWTH].allocations > 0,
        "callgrind's profile does not name the allocator's functions"
    );
    let sets = sets.map(|(headers, cases)| {
        let raw = cases
            .iter()
            .map(|case| (case.name, costs[&(headers.name(), case.name)]));
        (
            headers,
            Costs {
                raw: raw.collect(),
                cases,
            },
        )
    });

    for (headers, costs) in &sets {
        println!("{}", table(*headers, costs));
    }
    println!("| part | instructions | allocations |\n|---|--:|--:|");
    for (part, _) in PARTS {
        println!(
            "| {part} | {} | {} |",
            parts[part].instructions, parts[part].allocations
        );
    }
    println!("\n{}", conversations::table(&conversations));

    let [(_, four), (_, none), _, (_, cloned)] = &sets;
    if draw {
        chart::draw(four, none);
    }
    println!("| bar | figure | at most | |\n|---|--:|--:|---|");
    let mut exit = ExitCode::SUCCESS;
    let bars = (bars(Headers::Four, four).into_iter())
        .chain(bars(Headers::FourCloned, cloned))
        .chain(bars_of_parts(&parts))
        .chain(conversations::bars(&conversations));
    for (bar, figure, limit) in bars {
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

fn table(headers: Headers, costs: &Costs) -> String {
    let mut table = format!("| a request with {} | ", headers.name());
    table += "instructions | × by hand | allocations |\n|---|--:|--:|--:|\n";
    for case in costs.cases.iter().filter(|case| case.name != case.base) {
        let Cost {
            instructions,
            allocations,
            ..
        } = costs.of(case.name);
        let ratio = costs.ratio(case.name);
        table += &format!(
            "| {} | {instructions} | {ratio:.2} | {allocations} |\n",
            case.name
        );
    }
    table
}

/// A description of the bar, the figure, and the most that it may be.
type Bar = (String, u64, u64);

/// A figure in hundredths.
fn hundredths(percent: u64) -> String {
    format!("{}.{:02}", percent / 100, percent % 100)
}

/// The bars for requests with these headers, whose map has room or has to grow.
fn bars(headers: Headers, costs: &Costs) -> Vec<Bar> {
    let of = |name| costs.of(name).instructions;
    let on = |bar: String| format!("{bar}, {}", headers.name());
    let mut bars = vec![];
    // Where an insert does not make the map grow, it costs a third as much.
    let grows = headers == Headers::FourCloned;
    for (name, percent, percent_with_room) in [
        (EXTENSIONS, 130, 150),
        (EXTENSIONS_ID, 130, 150),
        (BOUND, 130, 150),
        (SCOPE, 130, 150),
        (FALLBACK, 134, 156),
        (LATE_FALLBACK, 134, 156),
        (ADDED, 134, 156),
        (OWN_SCOPE, 145, 178),
        (BUILDER_FALLBACK, 170, 240),
        (BUILDER_BOUND, 170, 240),
        (HTTP_FALLBACK, 170, 240),
        (HTTP_EXTENSIONS, 170, 240),
    ] {
        let percent = if grows { percent } else { percent_with_room };
        let peers = costs.case(name).peers.join(" and ");
        let bar = format!("{name}: {} × {peers}", hundredths(percent));
        bars.push((on(bar), of(name), costs.by_hand(name) * percent / 100));
    }
    let [(of_1, _), _, (of_100, _)] = NO_TARGET;
    for (name, percent, base) in [
        (EXISTING, 230, EMPTY),
        (of_1, 140, EMPTY),
        (of_100, 300, of_1),
        (EXTENSIONS, 100, RETRY),
        (EXTENSIONS, 100, TRACING),
        (SCOPE, 100, RETRY),
        (SCOPE, 100, TRACING),
        (FALLBACK, 100, RETRY),
        (FALLBACK, 100, TRACING),
    ] {
        let bar = format!("{name}: {} × {base}", hundredths(percent));
        bars.push((on(bar), of(name), of(base) * percent / 100));
    }
    // `session_from` stores its answer in the extensions, for retries.
    let ours = costs.cases.iter().filter(|case| {
        case.name.starts_with("ours") && ![SESSION_FROM, EVERYTHING].contains(&case.name)
    });
    for (warmth, of) in [
        ("warm", (|cost| cost.allocations) as fn(Cost) -> u64),
        ("cold", |cost| cost.cold_allocations),
    ] {
        for (entry_points, through_a_chain) in [("a chain", true), ("another entry point", false)] {
            // The peers have the allocations of the header map, and a chain's also the box.
            let over_peers = |case: &Case| {
                let peers = case.peers.iter().map(|peer| of(costs.of(peer)));
                of(costs.of(case.name)).saturating_sub(peers.sum())
            };
            let cases = ours
                .clone()
                .filter(|case| (case.peers == CHAIN) == through_a_chain);
            bars.push((
                on(format!(
                    "any of ours in {entry_points}, {warmth}: allocations over by hand"
                )),
                cases.map(over_peers).max().unwrap_or_default(),
                0,
            ));
        }
    }
    bars
}

/// The bars for parts.
fn bars_of_parts(parts: &HashMap<&str, Cost>) -> Vec<Bar> {
    let of = |part| parts[part].instructions;
    let [(build_100, _), (build_1000, _)] = BUILD;
    vec![
        (POLL.to_owned(), of(POLL), 60),
        (format!("{POLL}: allocations"), parts[POLL].allocations, 0),
        (
            format!("{build_1000}: 13 × {build_100}"),
            of(build_1000),
            of(build_100) * 13,
        ),
    ]
}
