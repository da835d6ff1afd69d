//! Effects on uploads and components (rule R31).

use bytes::Bytes;
use folkmoot_proto::{Digest, SessionId, Ticket};

use super::{ApplyError, Stamp, sessions};
use crate::state::applied::NodeChange;
use crate::state::kernel_nodes;
use crate::state::key::Key;
use crate::state::store::{Store, write};
use crate::state::value::{Component, SealedUpload, Upload, Value};

fn refused(digest: Digest, problem: &'static str) -> ApplyError {
    ApplyError::BadComponent { digest, problem }
}

pub(super) fn put_chunk<S: Store>(
    store: &mut S,
    stamp: Stamp,
    digest: Digest,
    session: SessionId,
    (size, offset): (u32, u32),
    data: &[u8],
) -> Result<(), ApplyError> {
    sessions::expect(store, session)?;
    if store.component(digest).is_some() {
        return Err(refused(digest, "it is installed already"));
    }
    let upload = store.upload(digest).cloned().unwrap_or(Upload {
        session,
        size,
        received: 0,
        touched: stamp.log_time,
        sealed: None,
    });
    if upload.session != session || upload.size != size || upload.sealed.is_some() {
        return Err(refused(digest, "its upload is another one"));
    }
    let received = u32::try_from(data.len()).ok();
    let received = received.and_then(|bytes| offset.checked_add(bytes));
    let received = received.filter(|&received| received > offset && received <= size);
    let (true, Some(received)) = (upload.received == offset, received) else {
        return Err(refused(digest, "the chunk is not the next one"));
    };
    let chunk = Value::Chunk(Bytes::copy_from_slice(data));
    store.put(Key::Chunk(digest, offset), Some(chunk));
    let upload = Upload {
        received,
        touched: stamp.log_time,
        ..upload
    };
    let key = Key::Upload(digest);
    write(store, key, Some(Value::Upload(Box::new(upload))));
    Ok(())
}

pub(super) fn seal_upload<S: Store>(
    store: &mut S,
    digest: Digest,
    name: &str,
    ticket: Ticket,
) -> Result<(), ApplyError> {
    let Some(upload) = store.upload(digest) else {
        return Err(refused(digest, "no upload"));
    };
    if upload.received != upload.size || upload.sealed.is_some() {
        return Err(refused(
            digest,
            "its upload is not whole, or sealed already",
        ));
    }
    let upload = Upload {
        sealed: Some(SealedUpload {
            name: name.to_owned(),
            ticket,
        }),
        ..upload.clone()
    };
    let key = Key::Upload(digest);
    write(store, key, Some(Value::Upload(Box::new(upload))));
    Ok(())
}

pub(super) fn drop_upload<S: Store>(store: &mut S, digest: Digest) -> Result<(), ApplyError> {
    if store.upload(digest).is_none() {
        return Err(refused(digest, "no upload"));
    }
    remove_chunks(store, digest);
    write(store, Key::Upload(digest), None);
    Ok(())
}

pub(super) fn install<S: Store>(
    store: &mut S,
    stamp: Stamp,
    digest: Digest,
    description: &str,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    let upload = store.upload(digest);
    let Some((size, sealed)) = upload.and_then(|up| Some((up.size, up.sealed.as_ref()?))) else {
        return Err(refused(digest, "no sealed upload"));
    };
    let component = Component {
        name: sealed.name.clone(),
        size,
        description: description.to_owned(),
        installed: stamp.zxid,
    };
    kernel_nodes::put_component(store, stamp, digest, &component, changes);
    write(store, Key::Upload(digest), None);
    let key = Key::Component(digest);
    write(store, key, Some(Value::Component(Box::new(component))));
    Ok(())
}

pub(super) fn remove<S: Store>(
    store: &mut S,
    stamp: Stamp,
    digest: Digest,
    changes: &mut Vec<NodeChange>,
) -> Result<(), ApplyError> {
    if store.component(digest).is_none() {
        return Err(refused(digest, "it is not installed"));
    }
    if store.mounts().iter().any(|mount| mount.digest == digest) {
        return Err(refused(digest, "a mount refers to it"));
    }
    remove_chunks(store, digest);
    kernel_nodes::remove_component(store, stamp, digest, changes);
    write(store, Key::Component(digest), None);
    Ok(())
}

fn remove_chunks<S: Store>(store: &mut S, digest: Digest) {
    for offset in store.chunk_offsets(digest) {
        store.put(Key::Chunk(digest, offset), None);
    }
}
