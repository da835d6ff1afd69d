//! Listings of children: a page at a time, all as of one zxid.

use std::collections::BTreeMap;

use folkmoot_proto::client::{ReadOutcome, ReadRefusal, Stat};
use folkmoot_proto::limits::CHUNK_BYTES_MAX;
use folkmoot_proto::{NodePath, ReadId, Tick, Zxid};

use crate::execution::{Execution, StreamId};
use crate::state::{Span, View, ViewId};

/// Names in one page: as many as fit a chunk at 16 bytes each.
const PAGE_NAMES_MAX: usize = CHUNK_BYTES_MAX / 16;
/// Bytes that a name takes in a frame beside its own.
const NAME_ENVELOPE_BYTES: usize = 8;
/// How long a listing whose next page nobody asks for keeps its view, in milliseconds: views are
/// few, and each keeps what changes.
const IDLE_MS_MAX: u64 = 10_000;

/// Listings of which more pages follow.
#[derive(Debug, Default)]
pub(in crate::execution) struct Listings {
    open: BTreeMap<(StreamId, ReadId), Listing>,
}

#[derive(Debug)]
struct Listing {
    view: ViewId,
    zxid: Zxid,
    stat: Stat,
    /// Names that may follow.
    left: usize,
    asked_at: Tick,
}

/// One page, and the zxid that it is as of.
type Page = (Zxid, Result<ReadOutcome, ReadRefusal>);

impl Execution {
    /// The first page of a listing. One that does not fit it keeps a view for those that follow.
    pub(in crate::execution) fn list(
        &mut self,
        stream: StreamId,
        read: ReadId,
        path: &NodePath,
        after: Option<String>,
        limit: u32,
    ) -> Result<ReadOutcome, ReadRefusal> {
        let Some(node) = self.state().node(path.as_str()) else {
            return Err(ReadRefusal::NoNode {
                path: path.to_string(),
            });
        };
        let stat = node.stat;
        let limit = match usize::try_from(limit) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(limit) => limit,
        };
        let wanted = limit.min(PAGE_NAMES_MAX + 1);
        let names = self
            .state()
            .children(path.as_str(), after.as_deref(), wanted);
        if names.len() <= PAGE_NAMES_MAX && bytes_of(&names) <= CHUNK_BYTES_MAX {
            let more = false;
            return Ok(ReadOutcome::Children { names, stat, more });
        }
        let span = Span::ChildrenAfter(path.to_string(), after);
        let view = self.state_mut().open_view(span);
        let view = view.map_err(|_| ReadRefusal::TooManyViews)?;
        let listing = Listing {
            view,
            zxid: self.state().zxid(),
            stat,
            left: limit,
            asked_at: self.last_tick,
        };
        if let Some(older) = self.listings.open.insert((stream, read), listing) {
            self.state_mut().close_view(older.view);
        }
        self.page(stream, read).1
    }

    /// The next page of a listing; none if there is no such listing.
    pub(in crate::execution) fn next_page(
        &mut self,
        stream: StreamId,
        read: ReadId,
    ) -> Option<Page> {
        let is_open = self.listings.open.contains_key(&(stream, read));
        is_open.then(|| self.page(stream, read))
    }

    fn page(&mut self, stream: StreamId, read: ReadId) -> Page {
        let Some(mut listing) = self.listings.open.remove(&(stream, read)) else {
            return (self.state().zxid(), Err(ReadRefusal::TooManyViews));
        };
        let mut names = Vec::new();
        let mut bytes = 0;
        let at_end = self
            .state_mut()
            .read_view_nodes(listing.view, &mut |path, _| {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                bytes += name.len() + NAME_ENVELOPE_BYTES;
                names.push(name);
                let has_room = bytes < CHUNK_BYTES_MAX && names.len() < PAGE_NAMES_MAX;
                has_room && names.len() < listing.left
            });
        listing.left -= names.len();
        listing.asked_at = self.last_tick;
        let (zxid, stat) = (listing.zxid, listing.stat);
        let more = !at_end && listing.left > 0;
        if more {
            self.listings.open.insert((stream, read), listing);
        } else {
            self.state_mut().close_view(listing.view);
        }
        (zxid, Ok(ReadOutcome::Children { names, stat, more }))
    }

    /// Ends the listings of a stream that ended.
    pub(in crate::execution) fn forget_listings(&mut self, stream: StreamId) {
        self.end_listings(|of, _| of == stream);
    }

    /// Ends listings whose next page was not asked for in a long time.
    pub(in crate::execution) fn end_idle_listings(&mut self, now: Tick) {
        self.end_listings(|_, listing| now.millis_since(listing.asked_at) > IDLE_MS_MAX);
    }

    fn end_listings(&mut self, which: impl Fn(StreamId, &Listing) -> bool) {
        let ended = self
            .listings
            .open
            .extract_if(.., |(of, _), listing| which(*of, listing));
        for (_, listing) in ended.collect::<Vec<_>>() {
            self.state_mut().close_view(listing.view);
        }
    }
}

fn bytes_of(names: &[String]) -> usize {
    names
        .iter()
        .map(|name| name.len() + NAME_ENVELOPE_BYTES)
        .sum()
}
