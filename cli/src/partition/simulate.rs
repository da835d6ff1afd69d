//! `folkmoot partition simulate`: rebalancers, judged offline.

use std::fs;

use folkmoot_trials::report::{HEADINGS, Row};
use folkmoot_trials::{Options, draw, models, trace};
use serde_json::{Value, json};

use super::args::Simulate;
use crate::failure::{Failure, REFUSED};
use crate::output::Output;

/// Runs every chosen policy on every chosen trace.
pub(crate) fn simulate(arguments: &Simulate, out: Output) -> Result<(), Failure> {
    let options = Options {
        members: arguments.members,
        partitions: arguments.partitions,
        seed: arguments.seed,
        ..Options::DEFAULT
    };
    let traces = chosen(&arguments.churn, &trace::NAMES, "trace")?;
    let names = models::POLICIES.map(|(name, _)| name);
    let policies = chosen(&arguments.policy, &names, "policy")?;
    let mut all = Vec::new();
    for trace in traces
        .iter()
        .filter_map(|name| trace::trace(name, &options))
    {
        let chosen = models::POLICIES.into_iter();
        let chosen = chosen.filter(|(name, _)| policies.contains(name));
        let rows: Result<Vec<Row>, _> = chosen
            .map(|policy| Row::of(&trace, policy, &options))
            .collect();
        let rows = rows.map_err(|no| Failure::new(REFUSED, &no.code, &no.message))?;
        if let Some(folder) = &arguments.svg {
            let file = folder.join(format!("{}.svg", trace.name));
            fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
            fs::write(&file, draw(&rows)).map_err(|error| Failure::file(&file, &error))?;
        }
        all.extend(rows);
    }
    let cells: Vec<Vec<String>> = all.iter().map(Row::cells).collect();
    let documents: Vec<Value> = all.iter().map(document).collect();
    out.table(&HEADINGS, &cells, &documents)
}

fn document(row: &Row) -> Value {
    let measures = &row.measures;
    json!({
        "trace": row.trace,
        "policy": row.policy,
        "moves": measures.moves,
        "to_bound": row.to_bound(),
        "taken_back": measures.taken_back,
        "worst_imbalance": measures.imbalance,
        "imbalance_at_end": measures.imbalance_at_end,
        "zone_violations": measures.zone_violations,
        "unowned_seconds": measures.unowned_s,
    })
}

/// The names that were asked for: one of them, or all.
fn chosen<'a>(asked: &str, known: &[&'a str], what: &str) -> Result<Vec<&'a str>, Failure> {
    if asked == "all" {
        return Ok(known.to_vec());
    }
    let found = known.iter().find(|name| **name == asked);
    found.map(|name| vec![*name]).ok_or_else(|| {
        let names = known.join(", ");
        Failure::configuration(format!("there is no {what} {asked}: all, {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_chosen_or_listed() {
        let known = ["a", "b"];
        assert_eq!(chosen("all", &known, "trace"), Ok(vec!["a", "b"]));
        assert_eq!(chosen("b", &known, "trace"), Ok(vec!["b"]));
        let failure = chosen("c", &known, "trace").unwrap_err();
        assert_eq!(failure.message, "there is no trace c: all, a, b");
    }
}
