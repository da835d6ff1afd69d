//! Services that say what they are, and clients that find them by that.
//!
//! ```text
//! cargo xtask dev                                                                # in one terminal
//! cargo run -p example-service-discovery -- serve shop db-1 10.0.0.1:5432 role=db # in others
//! cargo run -p example-service-discovery -- find shop role=db
//! ```
//!
//! A service is a member of a group for as long as its session lives. A client keeps a copy of the group
//! that follows every change: asking it costs nothing, and while the cluster is away the client goes on
//! with the last view it had, and knows how old that is.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use folkmoot_client::{Client, ClientConfig, Discovery, Group, GroupView, MemberInfo, MemberSpec};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

/// How long a dead service is still found.
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the age of the view is looked at.
const LOOK: Duration = Duration::from_secs(1);
const USAGE: &str = "usage: service-discovery serve GROUP ID ADDRESS [KEY=VALUE…]\n       \
                     service-discovery find GROUP [KEY=VALUE…]";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Where the cluster is comes from the environment, or from what `folkmoot dev` wrote.
    let config = ClientConfig::from_environment()?.session_timeout(SESSION_TIMEOUT);
    let client = Client::connect(config).await?;
    match *arguments.as_slice() {
        ["serve", group, id, address, ref meta @ ..] => {
            let mut spec = MemberSpec::at(address);
            spec.meta = facts(meta)?;
            serve(&client, group, id, spec).await
        }
        ["find", group, ref meta @ ..] => find(&client, group, &facts(meta)?).await,
        _ => Err(USAGE.into()),
    }
}

fn facts(said: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let fact = |said: &&str| match said.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("{said:?} is no KEY=VALUE")),
    };
    said.iter().map(fact).collect()
}

/// Is a member until Ctrl-C.
async fn serve(
    client: &Client,
    group: &str,
    id: &str,
    spec: MemberSpec,
) -> Result<(), Box<dyn Error>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let session = client.open_session().await?;
    let me = Group::new(&session, group).join(id, spec).await?;
    println!("{id}: serves, as incarnation {}", me.incarnation());
    interrupts.recv().await;
    // It is found no more at once; without this, once its session has expired.
    me.leave().await?;
    session.close().await?;
    client.close().await;
    Ok(())
}

/// Says who could be asked, whenever that changes, until Ctrl-C.
async fn find(
    client: &Client,
    group: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Box<dyn Error>> {
    let mut cache = Cache::default();
    loop {
        // A session that is over, as after a long absence of the cluster, is replaced; the last view
        // stays meanwhile.
        if let Ok(session) = client.open_session().await
            && let Ok(found) = Group::new(&session, group).discover().await
        {
            let ended = follow(found, &mut cache, wanted).await;
            println!("{ended}");
        }
        cache.say(wanted);
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps the cache current until the session is over.
async fn follow(
    mut found: Discovery,
    cache: &mut Cache,
    wanted: &BTreeMap<String, String>,
) -> folkmoot_client::WatchError {
    loop {
        cache.keep(found.view(), found.age());
        cache.say(wanted);
        tokio::select! {
            changed = found.changed() => if let Err(error) = changed {
                return error;
            },
            // The age is no event: it is looked at.
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// The last view that there was.
#[derive(Default)]
struct Cache {
    members: Vec<MemberInfo>,
    /// When it was certainly current; none before there was one.
    as_of: Option<Instant>,
    said: String,
}

impl Cache {
    fn keep(&mut self, view: GroupView, age: Duration) {
        self.members = view.members.to_vec();
        self.as_of = Instant::now().checked_sub(age);
    }

    /// Says who is available and has what is wanted, if that is news.
    fn say(&mut self, wanted: &BTreeMap<String, String>) {
        let age = self.as_of.map_or(0, |as_of| as_of.elapsed().as_secs());
        let fitting = self.members.iter();
        let fitting = fitting.filter(|member| member.is_available() && member.has(wanted));
        let found: Vec<String> = fitting
            .map(|member| {
                let address = member.spec.as_ref().map_or("", |spec| &spec.address);
                format!("{} at {address}", member.id)
            })
            .collect();
        let found = match found.is_empty() {
            true => "nobody".to_owned(),
            false => found.join(", "),
        };
        let says = match age {
            0 => format!("found {found}"),
            _ => format!("found {found}, {age} s ago"),
        };
        if says != self.said {
            println!("{says}");
            self.said = says;
        }
    }
}
