//! Groups: members that live with their sessions, and who they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use folkmoot_proto::Zxid;
use folkmoot_proto::client::{Change, ChangeKind, Guard, Operation, SnapshotNode};
use folkmoot_proto::group::{
    GroupOperation, MemberRecord, MemberSpec, MemberState, group_path, live_path, members_path,
};
use folkmoot_proto::reply::Outcome;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::core::Standing;
use crate::error::{WatchError, WriteError};
use crate::session::{Session, misfit};
use crate::watch::{Watch, WatchOptions};

/// Between two attempts to watch a group anew.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A group of members.
///
/// ```no_run
/// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// use folkmoot_client::{Group, MemberSpec};
/// let workers = Group::new(&session, "workers");
/// // A worker:
/// let me = workers.join("w-1", MemberSpec::at("10.0.0.7:9000")).await?;
/// // Whoever looks for workers:
/// for member in workers.members().await? {
///     println!("{} is {}", member.id, member.record.state.name());
/// }
/// me.leave().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    session: Session,
    name: Arc<str>,
}

/// A member, as the session that joined it holds it. It lives as long as the session: dropping this
/// changes nothing.
#[derive(Clone, Debug)]
pub struct Member {
    group: Group,
    id: Arc<str>,
    incarnation: Zxid,
}

/// What is known of one member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MemberInfo {
    /// Its id.
    pub id: String,
    /// How it is.
    #[serde(flatten)]
    pub record: MemberRecord,
    /// What it says of itself, while it lives.
    pub spec: Option<MemberSpec>,
}

impl MemberInfo {
    /// Whether new work may be given to it: it is alive, not suspect, not draining, and healthy.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.record.state == MemberState::Alive && self.record.healthy
    }

    /// Whether its meta has all these facts.
    #[must_use]
    pub fn has(&self, facts: &BTreeMap<String, String>) -> bool {
        let of = |spec: &MemberSpec| {
            facts
                .iter()
                .all(|(key, value)| spec.meta.get(key) == Some(value))
        };
        self.spec.as_ref().map_or(facts.is_empty(), of)
    }
}

impl Group {
    /// Names a group; nothing is asked of the cluster yet. It is made when its first member joins.
    #[must_use]
    pub fn new(session: &Session, name: &str) -> Self {
        Self {
            session: session.clone(),
            name: name.into(),
        }
    }

    /// Joins as a member, which lives as long as the session. Joined again by the same session, it
    /// is the same incarnation and says something else of itself.
    ///
    /// # Errors
    ///
    /// A member of that id lives with another session (rule R34): [`Refusal::MemberLives`]. A name,
    /// or what the member says of itself, is not within its limits: [`Refusal::BadMember`].
    ///
    /// [`Refusal::MemberLives`]: crate::Refusal::MemberLives
    /// [`Refusal::BadMember`]: crate::Refusal::BadMember
    pub async fn join(&self, id: &str, spec: MemberSpec) -> Result<Member, WriteError> {
        let join = GroupOperation::Join {
            spec,
            predecessor: None,
        };
        let zxid = self.ask(id, join).await?;
        let live = self
            .session
            .get(&format!("{}/{id}", live_path(&self.name)))
            .await;
        // Joined again, it is the incarnation that it was. A node of another session is none of
        // ours: the token of this join holds no more then, as it should.
        let own = live.ok().filter(|node| {
            node.stat.ephemeral_owner == Some(self.session.id()) && node.stat.czxid < zxid
        });
        let incarnation = own.map_or(zxid, |node| node.stat.czxid);
        Ok(Member {
            group: self.clone(),
            id: id.into(),
            incarnation,
        })
    }

    /// Has a member give up what it has, whether it lives or not, and over its restarts.
    ///
    /// # Errors
    ///
    /// No such member is known.
    pub async fn drain(&self, id: &str) -> Result<Zxid, WriteError> {
        self.ask(id, GroupOperation::Drain { drain: true }).await
    }

    /// Takes [`Group::drain`] back.
    ///
    /// # Errors
    ///
    /// No such member is known.
    pub async fn undrain(&self, id: &str) -> Result<Zxid, WriteError> {
        self.ask(id, GroupOperation::Drain { drain: false }).await
    }

    /// Removes what is kept of a member that is gone.
    ///
    /// # Errors
    ///
    /// It lives, or no such member is known.
    pub async fn forget(&self, id: &str) -> Result<Zxid, WriteError> {
        self.ask(id, GroupOperation::Forget).await
    }

    /// The members, those that are gone among them, by id, as of one zxid. A group that nobody has
    /// joined has none.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub async fn members(&self) -> Result<Vec<MemberInfo>, WatchError> {
        let (view, _) = self.snapshot().await?;
        Ok(view.members())
    }

    /// A copy of the group that is kept current: the way for clients that route to members. It goes
    /// on with the last view it had while the cluster is away, and says how old that is.
    ///
    /// ```no_run
    /// # async fn example(session: folkmoot_client::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use folkmoot_client::Group;
    /// let mut workers = Group::new(&session, "workers").discover().await?;
    /// loop {
    ///     let view = workers.view();
    ///     let available = view.members.iter().filter(|member| member.is_available());
    ///     println!("{} workers, {:?} old", available.count(), workers.age());
    ///     workers.changed().await?;
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Session::watch`], for the first view.
    pub async fn discover(&self) -> Result<Discovery, WatchError> {
        let (nodes, changes) = self.snapshot().await?;
        let (sender, views) = watch::channel(nodes.view());
        let follower = Follower {
            group: self.clone(),
            nodes,
            sender,
        };
        let task = tokio::spawn(follower.follow(changes));
        Ok(Discovery {
            session: self.session.clone(),
            views,
            unsafe_since: None,
            task,
        })
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    async fn ask(&self, id: &str, operation: GroupOperation) -> Result<Zxid, WriteError> {
        let operation = Operation::Group {
            group: self.name.to_string(),
            member: id.to_owned(),
            operation,
        };
        match self.session.request(operation).await? {
            (zxid, Outcome::GroupChanged) => Ok(zxid),
            (_, other) => Err(misfit(&other).into()),
        }
    }

    async fn snapshot(&self) -> Result<(Nodes, Watch), WatchError> {
        let options = WatchOptions::recursive(&group_path(&self.name)).with_data();
        let (snapshot, changes) = self.session.watch_and_read(options).await?;
        let mut nodes = Nodes::new(&self.name, snapshot.zxid);
        for SnapshotNode {
            path,
            data,
            stat: _,
        } in snapshot.nodes
        {
            nodes.put(&path, Some(&data));
        }
        Ok((nodes, changes))
    }
}

impl Member {
    #[cfg(test)]
    pub(crate) fn of(group: Group, id: &str, incarnation: Zxid) -> Self {
        Self {
            group,
            id: id.into(),
            incarnation,
        }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The zxid of the transaction by which it joined: a fencing token.
    #[must_use]
    pub fn incarnation(&self) -> Zxid {
        self.incarnation
    }

    /// A guard that holds while this incarnation lives (rule R13).
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard {
            path: format!("{}/{}", live_path(&self.group.name), self.id),
            token: self.incarnation,
        }
    }

    /// Says whether the member can do its work. While it can not, it is given no new work.
    ///
    /// # Errors
    ///
    /// It does not live any more.
    pub async fn report(&self, healthy: bool) -> Result<Zxid, WriteError> {
        let report = GroupOperation::Report {
            healthy,
            restart_delay_ms: None,
        };
        self.group.ask(&self.id, report).await
    }

    /// Announces a restart: the member's work waits that long for it once its session is over, in
    /// place of the 30 s that any member is awaited. At most a day.
    ///
    /// # Errors
    ///
    /// It does not live any more, or the time is too long.
    pub async fn announce_restart(&self, delay: Duration) -> Result<Zxid, WriteError> {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let report = GroupOperation::Report {
            healthy: true,
            restart_delay_ms: Some(millis),
        };
        self.group.ask(&self.id, report).await
    }

    /// Leaves the group: the member is gone, and its work does not wait for it. What it owns of the
    /// group's partitions is lost when this is asked, before the cluster hears of it, and whatever
    /// the answer is: to hand them over, drain the member first ([`Group::drain`]).
    ///
    /// # Errors
    ///
    /// It does not live any more.
    pub async fn leave(&self) -> Result<Zxid, WriteError> {
        self.group.ask(&self.id, GroupOperation::Leave).await
    }
}

/// A group as of one zxid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Every change up to here is in it.
    pub zxid: Zxid,
    /// The members, those that are gone among them, by id.
    pub members: Arc<[MemberInfo]>,
}

/// A copy of a group that is kept current, until it is dropped.
#[derive(Debug)]
pub struct Discovery {
    session: Session,
    views: watch::Receiver<GroupView>,
    unsafe_since: Option<Instant>,
    task: JoinHandle<WatchError>,
}

impl Discovery {
    /// The last view there is; it costs nothing.
    #[must_use]
    pub fn view(&self) -> GroupView {
        self.views.borrow().clone()
    }

    /// How old the view may be: nothing while the cluster acknowledges the session's heartbeats,
    /// else the time since this was first asked without that.
    pub fn age(&mut self) -> Duration {
        if self.session.standing() == Standing::Safe {
            self.unsafe_since = None;
            return Duration::ZERO;
        }
        self.unsafe_since.get_or_insert_with(Instant::now).elapsed()
    }

    /// Waits for another view than the last one that [`Discovery::changed`] returned. Cancel safe.
    ///
    /// # Errors
    ///
    /// The session is over: the last view stays, and nothing follows.
    pub async fn changed(&mut self) -> Result<GroupView, WatchError> {
        if self.views.changed().await.is_ok() {
            return Ok(self.views.borrow_and_update().clone());
        }
        match (&mut self.task).await {
            Ok(error) => Err(error),
            Err(_) => Err(WatchError::TaskGone),
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a discovery's view current.
struct Follower {
    group: Group,
    nodes: Nodes,
    sender: watch::Sender<GroupView>,
}

impl Follower {
    /// Follows the changes, and begins anew where their history is gone, until the session is over.
    async fn follow(mut self, mut changes: Watch) -> WatchError {
        loop {
            while let Some(transaction) = changes.next().await {
                match transaction {
                    Ok(transaction) => self.take(transaction.zxid, &transaction.changes),
                    Err(error @ (WatchError::SessionEnded { .. } | WatchError::TaskGone)) => {
                        return error;
                    }
                    Err(_) => break,
                }
            }
            match self.begin_anew().await {
                Ok(anew) => changes = anew,
                Err(error) => return error,
            }
        }
    }

    fn take(&mut self, zxid: Zxid, changes: &[Change]) {
        for change in changes {
            let data = (change.kind != ChangeKind::Deleted).then_some(change.data.as_slice());
            self.nodes.put(&change.path, data);
        }
        self.nodes.zxid = zxid;
        let _ = self.sender.send(self.nodes.view());
    }

    async fn begin_anew(&mut self) -> Result<Watch, WatchError> {
        loop {
            match self.group.snapshot().await {
                Ok((nodes, changes)) => {
                    self.nodes = nodes;
                    let _ = self.sender.send(self.nodes.view());
                    return Ok(changes);
                }
                Err(error @ (WatchError::SessionEnded { .. } | WatchError::TaskGone)) => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }
}

/// A group's nodes, as they were read and watched.
#[derive(Debug)]
struct Nodes {
    zxid: Zxid,
    members_prefix: String,
    live_prefix: String,
    records: BTreeMap<String, MemberRecord>,
    specs: BTreeMap<String, MemberSpec>,
}

impl Nodes {
    fn new(group: &str, zxid: Zxid) -> Self {
        Self {
            zxid,
            members_prefix: format!("{}/", members_path(group)),
            live_prefix: format!("{}/", live_path(group)),
            records: BTreeMap::new(),
            specs: BTreeMap::new(),
        }
    }

    /// A node has this value now, or is gone. One that does not parse is as one that is not there:
    /// a later version may write it in another way.
    fn put(&mut self, path: &str, data: Option<&[u8]>) {
        if let Some(id) = path.strip_prefix(&self.members_prefix) {
            set(&mut self.records, id, data);
        } else if let Some(id) = path.strip_prefix(&self.live_prefix) {
            set(&mut self.specs, id, data);
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        let info = |(id, record): (&String, &MemberRecord)| MemberInfo {
            id: id.clone(),
            record: record.clone(),
            spec: self.specs.get(id).cloned(),
        };
        self.records.iter().map(info).collect()
    }

    fn view(&self) -> GroupView {
        GroupView {
            zxid: self.zxid,
            members: self.members().into(),
        }
    }
}

fn set<T: serde::de::DeserializeOwned>(
    values: &mut BTreeMap<String, T>,
    id: &str,
    data: Option<&[u8]>,
) {
    match data.and_then(|data| serde_json::from_slice(data).ok()) {
        Some(value) => values.insert(id.to_owned(), value),
        None => values.remove(id),
    };
}

#[cfg(test)]
mod tests {
    use folkmoot_proto::{SessionId, WallTime};

    use super::*;

    fn put(nodes: &mut Nodes, path: &str, value: &impl serde::Serialize) {
        nodes.put(path, Some(&serde_json::to_vec(value).unwrap()));
    }

    #[test]
    fn a_view_puts_together_what_is_kept_and_what_lives() {
        let mut nodes = Nodes::new("g", Zxid(9));
        let mut spec = MemberSpec::at("a:1");
        spec.meta.insert("role".to_owned(), "db".to_owned());
        let record = MemberRecord::joined(None, &spec, SessionId(1), Zxid(2), WallTime(3));
        put(&mut nodes, "/folkmoot/groups/g/members/w", &record);
        put(&mut nodes, "/folkmoot/groups/g/live/w", &spec);
        put(&mut nodes, "/folkmoot/groups/other/live/x", &spec);
        let view = nodes.view();
        assert_eq!(view.members.len(), 1);
        let member = &view.members[0];
        assert!(member.is_available());
        assert!(member.has(&[("role".to_owned(), "db".to_owned())].into()));
        assert!(!member.has(&[("role".to_owned(), "web".to_owned())].into()));
        nodes.put("/folkmoot/groups/g/live/w", None);
        assert_eq!(nodes.view().members[0].spec, None);
    }
}
