//! A summary of the calls, in a few lines.

use std::fmt;

use crate::journal::Totals;

pub struct Summary(pub Totals);

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = &self.0;
        let share = (totals.cached_tokens * 100).checked_div(totals.prompt_tokens);
        let cached = match share {
            Some(share) => format!(
                "{share} % of {} prompt tokens",
                thousands(totals.prompt_tokens)
            ),
            None => "not reported".to_owned(),
        };
        let cost = match totals.cost {
            Some(cost) => format!("${cost:.4}"),
            None => "not reported".to_owned(),
        };
        let mut rows = vec![
            ("calls", thousands(totals.calls)),
            ("conversations", thousands(totals.conversations)),
            ("without a session", thousands(totals.missed)),
            ("moved to another session", thousands(totals.moved)),
        ];
        for (name, count) in [
            ("sharing a session", totals.shared),
            ("quoting another session", totals.quotes),
            ("doubled or malformed session", totals.malformed),
            ("with an allowed mark", totals.allowed),
            ("refused", totals.refused),
        ] {
            if count > 0 {
                rows.push((name, thousands(count)));
            }
        }
        rows.push(("cached", cached));
        rows.push(("cost", cost));
        let width = rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, value) in rows {
            writeln!(f, "{name:width$}  {value}")?;
        }
        Ok(())
    }
}

/// Returns a number with commas between groups of three digits.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_what_was_counted_and_leaves_out_rare_faults_that_did_not_happen() {
        let mut totals = Totals {
            calls: 1_200,
            conversations: 3,
            shared: 2,
            prompt_tokens: 4_000,
            cached_tokens: 1_000,
            cost: Some(0.125),
            ..Totals::default()
        };
        let expected = "\
calls                     1,200
conversations             3
without a session         0
moved to another session  0
sharing a session         2
cached                    25 % of 4,000 prompt tokens
cost                      $0.1250
";
        assert_eq!(Summary(totals.clone()).to_string(), expected);

        (totals.shared, totals.prompt_tokens, totals.cost) = (0, 0, None);
        let summary = Summary(totals).to_string();
        assert!(!summary.contains("sharing"), "{summary}");
        assert!(summary.ends_with(
            "\ncached                    not reported\ncost                      not reported\n"
        ));
    }

    #[test]
    fn long_numbers_are_grouped() {
        let numbers = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
