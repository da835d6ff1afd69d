//! Following a partition map: the copy that a session's task keeps current.

use folkmoot_proto::Zxid;
use folkmoot_proto::partition::MapDetail;
use tokio::sync::watch;

use crate::core::{MapKey, MapNews, SharedCopy};
use crate::driver::{Command, Key};
use crate::error::MapError;
use crate::session::Session;

/// What the task tells of a map.
#[derive(Clone, Debug, Default)]
pub(crate) struct MapTold {
    pub(crate) copy: Option<SharedCopy>,
    /// What the copy is as of; none before it was told.
    pub(crate) through: Option<Zxid>,
    /// Why nothing follows.
    pub(crate) end: Option<MapError>,
}

impl MapTold {
    pub(crate) fn take(&mut self, map: &MapKey, news: &MapNews) {
        match news {
            MapNews::Through(zxid) => self.through = Some(*zxid),
            MapNews::Refused { reason } => {
                self.end = Some(MapError::Refused {
                    group: map.group.clone(),
                    reason: reason.clone(),
                });
            }
            MapNews::SessionEnded { expired } => {
                self.end = Some(MapError::SessionEnded { expired: *expired });
            }
        }
    }
}

/// A map that is followed until this is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    session: Session,
    key: Key,
    told: watch::Receiver<MapTold>,
}

impl Following {
    /// Follows a map, and returns once it was told.
    pub(crate) async fn begin(
        session: &Session,
        group: &str,
        detail: MapDetail,
    ) -> Result<(Self, SharedCopy), MapError> {
        let (sender, told) = watch::channel(MapTold::default());
        let key = session.key();
        session.command(Command::FollowMap {
            key,
            map: MapKey {
                group: group.to_owned(),
                detail,
            },
            told: sender,
        })?;
        let mut following = Self {
            session: session.clone(),
            key,
            told,
        };
        let first = following.first();
        let copy = match session.request_timeout() {
            None => first.await?,
            Some(after) => tokio::time::timeout(after, first)
                .await
                .map_err(|_| MapError::TimedOut { after })??,
        };
        Ok((following, copy))
    }

    async fn first(&mut self) -> Result<SharedCopy, MapError> {
        loop {
            let told = self.told.borrow_and_update().clone();
            match (told.end, told.copy, told.through) {
                (Some(error), _, _) => return Err(error),
                (None, Some(copy), Some(_)) => return Ok(copy),
                _ => self.told.changed().await.map_err(|_| MapError::TaskGone)?,
            }
        }
    }

    /// Waits until the copy changed since this was asked last. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Result<(), MapError> {
        let changed = self.told.changed().await;
        match (&self.told.borrow_and_update().end, changed) {
            (Some(error), _) => Err(error.clone()),
            (None, Err(_)) => Err(MapError::TaskGone),
            (None, Ok(())) => Ok(()),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // A session that is over follows nothing.
        let _ = self.session.command(Command::EndMap { key: self.key });
    }
}
