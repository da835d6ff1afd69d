//! A scenario of components on their way into the cluster (rule R31).

use folkmoot_core::state::View as _;
use folkmoot_proto::Digest;
use folkmoot_proto::client::Operation;
use folkmoot_proto::reply::{Outcome, Refusal};

use super::leader::Leader;

/// A component that its examination refuses is not installed, and its upload goes.
pub(super) fn a_component_that_is_none_is_refused() -> Result<(), String> {
    let bytes = b"no component";
    let digest = Digest::of(bytes);
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    let chunk = Operation::UploadChunk {
        digest,
        size: bytes.len() as u32,
        offset: 0,
        data: bytes.to_vec(),
    };
    if leader.call(&mut client, chunk)? != Ok(Outcome::ChunkTaken) {
        return Err("its upload is refused".to_owned());
    }
    let name = "none".to_owned();
    leader.wait(&mut client, Operation::Install { digest, name })?;
    match leader.completion(&client) {
        Some(Err(Refusal::ComponentRefused { .. })) => {}
        other => return Err(format!("its installation ends so: {other:?}")),
    }
    let state = leader.execution.state();
    match state.component(digest).is_none() && state.upload(digest).is_none() {
        true => Ok(()),
        false => Err("it is kept".to_owned()),
    }
}

/// An upload whose next chunk does not come is dropped, though its session lives.
pub(super) fn an_upload_that_does_not_go_on_goes() -> Result<(), String> {
    let digest = Digest([7; 32]);
    let mut leader = Leader::new()?;
    let mut client = leader.open(1)?;
    let chunk = Operation::UploadChunk {
        digest,
        size: 10_000,
        offset: 0,
        data: vec![7; 5_000],
    };
    if leader.call(&mut client, chunk)? != Ok(Outcome::ChunkTaken) {
        return Err("it is refused".to_owned());
    }
    for heartbeat in 0..14 {
        if heartbeat == 11 && leader.execution.state().upload(digest).is_none() {
            return Err("it is dropped before its deadline".to_owned());
        }
        leader.heartbeat(&client, heartbeat);
        leader.pass(5_000)?;
    }
    let state = leader.execution.state();
    match state.upload(digest).is_none() && state.session(client.session).is_some() {
        true => Ok(()),
        false => Err("it is kept".to_owned()),
    }
}
