//! The chart of `benches/README.md`.

use std::fmt::Write;
use std::fs;

use crate::Costs;
use crate::cases::*;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overhead.svg");

/// The left end of the bars, and the length of the longest one.
const LEFT: u64 = 300;
const WIDTH: u64 = 350;
const ROW: u64 = 36;
const HEAD: u64 = 34;

/// Draws the cases that go through a chain, for both requests, in colours that are visible on white
/// and on black.
pub fn draw(four: &Costs, none: &Costs) {
    let through_a_chain = |case: &&Case| case.peers == CHAIN && case.base != case.name;
    let names: Vec<_> = four
        .cases
        .iter()
        .filter(through_a_chain)
        .map(|case| case.name)
        .filter(|name| *name != BARE_IN_SCOPE)
        .collect();
    let instructions = |costs: &Costs, name| costs.of(name).instructions;
    let most = names
        .iter()
        .flat_map(|name| [four, none].map(|costs| instructions(costs, name)))
        .max()
        .unwrap_or(1);

    let height = HEAD + ROW * names.len() as u64;
    let mut chart = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}">
<title>Instructions per request, over the same request with no middleware</title>
<g font-family="sans-serif" font-size="13" fill="#787878">
<text x="{LEFT}" y="17">on a request with four headers (full) and with none (pale)</text>
"##
    );
    for (row, name) in names.iter().enumerate() {
        let color = if name.starts_with("ours") {
            "#e0701a"
        } else {
            "#787878"
        };
        let top = HEAD + ROW * row as u64;
        writeln!(
            chart,
            r##"<g transform="translate({LEFT} {top})">
<text x="-8" y="19" text-anchor="end">{name}</text>"##
        )
        .unwrap();
        for (costs, y, opacity) in [(four, 2, "1"), (none, 16, "0.5")] {
            let instructions = instructions(costs, name);
            let width = instructions * WIDTH / most;
            writeln!(
                chart,
                r##"<rect y="{y}" width="{width}" height="13" rx="2" fill="{color}" opacity="{opacity}"/>
<text x="{}" y="{}" font-size="11">{instructions}</text>"##,
                width + 6,
                y + 11,
            )
            .unwrap();
        }
        chart += "</g>\n";
    }
    chart += "</g>\n</svg>\n";
    fs::write(CHART, chart).unwrap();
}
