//! Failure detectors: which one serves whom, and how good they are.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use folkmoot_client::{
    DetectorInfo, DetectorStatus, Digest, PolicyChoice, Session, cluster_status,
};
use folkmoot_detection_trials::report::{Detectors, Outcome};
use folkmoot_detection_trials::suspicion::Point;
use folkmoot_detection_trials::worlds::Set;
use folkmoot_detection_trials::{Quality, plot, recorded, report};
use serde_json::{Value, json};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::Output;
use crate::plugin;
use crate::{cluster, connect};

#[derive(Debug, Subcommand)]
pub(crate) enum Detector {
    /// Compare the standard failure detectors on generated and recorded traces. Needs no cluster.
    Simulate(Simulate),
    /// Have a failure detector serve a group, or all for which none is chosen.
    #[command(allow_missing_positional = true)]
    Use {
        /// The group, whether it is there yet or not.
        #[arg(required_unless_present = "default", conflicts_with = "default")]
        group: Option<String>,
        /// An installed component: its name, or its digest (or the first digits of it).
        component: String,
        /// Choose for the sessions that are in no group, and for the groups without a choice.
        #[arg(long)]
        default: bool,
        /// A file with its configuration.
        #[arg(long, value_name = "FILE")]
        configure: Option<PathBuf>,
    },
    /// Take a choice back: the default serves the group then, and without a default plain timeouts.
    Drop {
        /// The group.
        #[arg(required_unless_present = "default", conflicts_with = "default")]
        group: Option<String>,
        /// The default.
        #[arg(long)]
        default: bool,
    },
    /// Show which failure detectors are chosen, and whether they answer.
    Show,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// The generated traces: those to judge on, or those to choose a configuration on.
    #[arg(long, value_enum, default_value_t = Traces::Judged)]
    traces: Traces,
    /// What they are drawn by; the same gives the same.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Hours that each lasts, with 96 clients.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    hours: u64,
    /// A recorded trace, which is judged too; may be repeated.
    #[arg(long, value_name = "FILE")]
    recording: Vec<PathBuf>,
    /// phi-accrual's configuration, as JSON.
    #[arg(long, value_name = "JSON", default_value = "")]
    phi: String,
    /// fixed-timeout's configuration, as JSON.
    #[arg(long, value_name = "JSON", default_value = "")]
    fixed: String,
    /// Draw `detection.svg` and `expiries.svg` in this folder.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Which generated traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Traces {
    /// Those to judge on.
    Judged,
    /// Those to choose a configuration on.
    Tuning,
    /// None, but recordings.
    None,
}

/// The commands that ask something of a cluster.
pub(crate) async fn operate(
    session: &Session,
    global: &Global,
    command: Detector,
    out: Output,
) -> Result<(), Failure> {
    match command {
        Detector::Use {
            group,
            component,
            default: _,
            configure,
        } => {
            let configuration = match configure {
                Some(file) => {
                    fs::read_to_string(&file).map_err(|error| Failure::file(&file, &error))?
                }
                None => String::new(),
            };
            let digest = plugin::find(&session.plugins().await?, &component)?;
            let choice = PolicyChoice {
                digest,
                configuration,
            };
            let group = group.unwrap_or_default();
            let zxid = session.choose_detector(&group, Some(choice)).await?;
            let text = format!("{component} serves {}", name(&group));
            let document = json!({ "group": group, "digest": digest, "zxid": zxid });
            out.print(&text, &document)
        }
        Detector::Drop { group, default: _ } => {
            let group = group.unwrap_or_default();
            let zxid = session.choose_detector(&group, None).await?;
            let text = format!("no failure detector is chosen for {}", name(&group));
            out.print(&text, &json!({ "group": group, "zxid": zxid }))
        }
        Detector::Show => {
            let (detectors, plugins) = (session.detectors().await?, session.plugins().await?);
            let component = |digest: Digest| {
                let plugin = plugins.iter().find(|plugin| plugin.digest == digest);
                plugin.map_or_else(String::new, |plugin| plugin.name.clone())
            };
            let standings = standings(global).await?;
            let standing = |of: &DetectorInfo| {
                let mut standings = standings.iter();
                standings.find(|standing| standing.group == of.group)
            };
            let row = |of: &DetectorInfo| {
                vec![
                    name(&of.group).to_owned(),
                    component(of.digest),
                    standing(of).map_or_else(|| "no leader says".to_owned(), does),
                    of.digest.to_string(),
                    of.configuration.clone(),
                ]
            };
            let document = |of: &DetectorInfo| {
                let mut document = json!(of);
                if let (Some(fields), Some(Value::Object(standing))) = (
                    document.as_object_mut(),
                    standing(of).map(cluster::detector_document),
                ) {
                    fields.extend(standing);
                }
                document
            };
            let rows: Vec<_> = detectors.iter().map(row).collect();
            let documents: Vec<_> = detectors.iter().map(document).collect();
            let headings = ["GROUP", "COMPONENT", "ANSWERS", "DIGEST", "CONFIGURATION"];
            out.table(&headings, &rows, &documents)
        }
        // It needs no cluster.
        Detector::Simulate(_) => Ok(()),
    }
}

/// What the leader says of the detectors that are chosen; nothing where none is to be asked.
async fn standings(global: &Global) -> Result<Vec<DetectorStatus>, Failure> {
    let endpoints = cluster_status(connect::config(global)?).await?;
    let mut answered = endpoints.into_iter().filter_map(|of| of.status.ok());
    let leader = answered.find(|status| status.role == "leader");
    Ok(leader.map_or_else(Vec::new, |leader| leader.detectors))
}

/// Whether a detector answers, for people.
fn does(standing: &DetectorStatus) -> String {
    match (standing.faults, standing.answered_ms) {
        (0, Some(millis)) => format!("{}.{} s ago", millis / 1000, millis % 1000 / 100),
        (0, None) => "was not asked yet".to_owned(),
        (1, _) => format!("failed: {}", standing.problem),
        (faults, _) => format!("failed {faults} times: {}", standing.problem),
    }
}

/// As people are told of a group, or of the default.
fn name(group: &str) -> &str {
    if group.is_empty() { "(default)" } else { group }
}

pub(crate) fn simulate(simulate: &Simulate, output: Output) -> Result<(), Failure> {
    let detectors = Detectors::configured(simulate.fixed.as_bytes(), simulate.phi.as_bytes())
        .map_err(Failure::configuration)?;
    let mut outcomes = match simulate.traces {
        Traces::Judged => detectors.run_all(Set::Judged, simulate.seed, simulate.hours),
        Traces::Tuning => detectors.run_all(Set::Tuning, simulate.seed, simulate.hours),
        Traces::None => Vec::new(),
    };
    for file in &simulate.recording {
        let text = fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let trace = recorded::read(&name, &text)
            .map_err(|error| Failure::configuration(format!("{}: {error}", file.display())))?;
        outcomes.push(detectors.run(&trace));
    }
    if let Some(folder) = &simulate.plots {
        fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
        write(&folder.join("detection.svg"), &plot::curves(&outcomes))?;
        write(&folder.join("expiries.svg"), &plot::expiries(&outcomes))?;
    }
    let documents: Vec<Value> = outcomes.iter().map(document).collect();
    output.print(report::markdown(&outcomes).trim_end(), &json!(documents))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::file(path, &error))
}

fn document(outcome: &Outcome) -> Value {
    json!({
        "trace": outcome.trace,
        "session_hours": outcome.session_hours,
        "timeout_ms": outcome.timeout_ms,
        "fixed": quality(&outcome.fixed),
        "phi": quality(&outcome.phi),
    })
}

fn quality(quality: &Quality) -> Value {
    let expiry = &quality.expiry;
    json!({
        "curve": quality.suspicion.points.iter().map(point).collect::<Vec<_>>(),
        "configured": point(&quality.suspicion.configured),
        "expiry": {
            "crashes": expiry.crashes,
            "mistaken": expiry.mistaken,
            "p50_timeouts": expiry.p50_timeouts,
            "p99_timeouts": expiry.p99_timeouts,
            "before_floor": expiry.before_floor,
            "after_ceiling": expiry.after_ceiling,
            "by_sick_observer": expiry.by_sick_observer,
        },
    })
}

fn point(point: &Point) -> Value {
    json!({
        "threshold": point.threshold,
        "detection_ms": point.detection_ms,
        "detection_p99_ms": point.detection_p99_ms,
        "mistakes_an_hour": point.mistakes_an_hour,
        "mistake_ms": point.mistake_ms,
    })
}
