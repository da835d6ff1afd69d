//! `cluster status`.

use folkmoot_client::{DetectorStatus, EndpointStatus, MemberStatus, cluster_status};
use serde_json::{Value, json};

use crate::args::Global;
use crate::connect;
use crate::failure::{Failure, NO_CLUSTER, NO_MEMBER_ANSWERS};
use crate::output::{Output, note};

pub(crate) async fn status(global: &Global, out: Output) -> Result<(), Failure> {
    let endpoints = cluster_status(connect::config(global)?).await?;
    let rows: Vec<_> = endpoints.iter().map(row).collect();
    let documents: Vec<_> = endpoints.iter().map(document).collect();
    let headings = [
        "ENDPOINT", "MEMBER", "ROLE", "TERM", "LEADER", "COMMIT", "ZXID", "HASH", "SESSIONS",
        "NODES", "WATCHES", "VERSION",
    ];
    out.table(&headings, &rows, &documents)?;
    let silent = endpoints.iter().filter_map(|endpoint| {
        let error = endpoint.status.as_ref().err()?;
        Some(format!("{}: {error}", endpoint.endpoint))
    });
    silent.for_each(note);
    verdict(&endpoints).map_err(|failure| connect::name_source(global, failure))
}

/// A cluster that can not serve is said so by the exit code, too.
fn verdict(endpoints: &[EndpointStatus]) -> Result<(), Failure> {
    let answered: Vec<_> = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.status.as_ref().ok())
        .collect();
    if answered.is_empty() {
        return Err(Failure::new(
            NO_CLUSTER,
            NO_MEMBER_ANSWERS,
            "no member answers",
        ));
    }
    if !answered.iter().any(|status| status.role == "leader") {
        let text = "no member that answers is the leader: nothing can be written now";
        return Err(Failure::new(NO_CLUSTER, "no-leader", text));
    }
    Ok(())
}

fn row(endpoint: &EndpointStatus) -> Vec<String> {
    let name = endpoint.endpoint.clone();
    match &endpoint.status {
        Ok(status) => vec![
            name,
            status.member.to_string(),
            status.role.clone(),
            status.term.to_string(),
            status
                .leader
                .map_or("-".to_owned(), |leader| leader.to_string()),
            status.commit_index.to_string(),
            status.applied_zxid.to_string(),
            format!("{:016x}", status.state_hash),
            status.sessions.to_string(),
            status.nodes.to_string(),
            status.watches.to_string(),
            status.version.clone(),
        ],
        Err(_) => {
            let mut row = vec![name, "-".to_owned(), "silent".to_owned()];
            row.resize(12, "-".to_owned());
            row
        }
    }
}

fn document(endpoint: &EndpointStatus) -> Value {
    match &endpoint.status {
        Ok(status) => member_document(&endpoint.endpoint, status),
        Err(error) => json!({ "endpoint": endpoint.endpoint, "error": error.to_string() }),
    }
}

/// How a failure detector does.
pub(crate) fn detector_document(status: &DetectorStatus) -> Value {
    json!({
        "group": status.group,
        "answered_ms": status.answered_ms,
        "faults": status.faults,
        "problem": status.problem,
    })
}

fn member_document(endpoint: &str, status: &MemberStatus) -> Value {
    let peers: Vec<_> = status
        .peers
        .iter()
        .map(|peer| {
            json!({
                "member": peer.member,
                "match_index": peer.match_index,
                "last_contact_ms": peer.last_contact_ms,
            })
        })
        .collect();
    let detectors = status.detectors.iter().map(detector_document);
    let detectors: Vec<_> = detectors.collect();
    json!({
        "endpoint": endpoint,
        "cluster": status.cluster,
        "member": status.member,
        "role": status.role,
        "term": status.term,
        "leader": status.leader,
        "last_index": status.last_index,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "applied_zxid": status.applied_zxid,
        "state_hash": format!("{:016x}", status.state_hash),
        "sessions": status.sessions,
        "nodes": status.nodes,
        "watches": status.watches,
        "voters": status.voters,
        "peers": peers,
        "detectors": detectors,
        "version": status.version,
    })
}
