//! `partition`: which member of a group owns which partition.

pub(crate) mod args;
mod picture;
mod show;
mod simulate;
mod svg;
mod terminal;

use folkmoot_client::{
    Digest, Explanation, Group, Layout, MapConfig, PartitionChange, PartitionId, PartitionKey,
    PartitionMap, PartitionView, PolicyChoice, Route, Session, Zxid,
};
use serde_json::{Value, json};

use crate::failure::{Failure, REFUSED};
use crate::output::Output;
use crate::plugin;
use args::{Create, Options, Partition, Policy, Set};

pub(crate) use simulate::simulate;

/// The commands that ask a cluster.
pub(crate) async fn operate(
    session: &Session,
    command: Partition,
    out: Output,
) -> Result<(), Failure> {
    let map = |group: &str| PartitionMap::new(session, group);
    match command {
        Partition::Create(arguments) => create(session, arguments, out).await,
        Partition::List => show::list(session, out).await,
        Partition::Map(arguments) => show::map(session, &arguments, out).await,
        Partition::Plan { group, policy } => plan(session, &group, policy, out).await,
        Partition::Explain { group, partition } => {
            let explained = map(&group).explain(PartitionId(partition)).await?;
            out.print(&explanation(&group, &explained), &json!(explained))
        }
        Partition::Move {
            group,
            partition,
            members,
        } => {
            let to = members.join(", ");
            let zxid = map(&group).move_to(PartitionId(partition), members).await?;
            told(
                &group,
                &format!("partition {partition} moves to {to}"),
                zxid,
                out,
            )
        }
        Partition::Cancel(of) => {
            let zxid = map(&of.group)
                .cancel_move(PartitionId(of.partition))
                .await?;
            told(
                &of.group,
                &format!("partition {} stays", of.partition),
                zxid,
                out,
            )
        }
        Partition::Freeze(of) => freeze(&map(&of.group), &of, true, out).await,
        Partition::Unfreeze(of) => freeze(&map(&of.group), &of, false, out).await,
        Partition::Approve { group } => {
            let zxid = map(&group).approve().await?;
            told(&group, "the policy's plans are carried out", zxid, out)
        }
        Partition::Split(of) => {
            let zxid = map(&of.group).split(PartitionId(of.partition)).await?;
            told(
                &of.group,
                &format!("partition {} is split", of.partition),
                zxid,
                out,
            )
        }
        Partition::Pin {
            group,
            partitions,
            to,
        } => {
            let text = match &to {
                Some(member) => format!("pinned to {member}"),
                None => "pinned to nobody".to_owned(),
            };
            let change = PartitionChange {
                pin: Some(to),
                ..PartitionChange::default()
            };
            let partitions = args::partitions(&partitions);
            let zxid = map(&group).change(partitions, change).await?;
            told(&group, &text, zxid, out)
        }
        Partition::Set(arguments) => set(session, arguments, out).await,
        Partition::Configure { group, options } => {
            let map = map(&group);
            let before = map.view().await?.config;
            let config = configured(session, before.clone(), options).await?;
            if let Some(choice) = &config.policy
                && config.policy != before.policy
            {
                session.try_policy(choice.clone()).await?;
            }
            let zxid = map.configure(config).await?;
            told(&group, "configured", zxid, out)
        }
        Partition::Remove { group } => {
            let zxid = map(&group).remove().await?;
            told(&group, "the map is removed", zxid, out)
        }
        Partition::Route { group, keys } => route(session, &group, &keys, out).await,
        // It asks no cluster.
        Partition::Simulate(_) => Ok(()),
    }
}

fn told(group: &str, text: &str, zxid: Zxid, out: Output) -> Result<(), Failure> {
    let document = json!({ "group": group, "zxid": zxid });
    out.print(&format!("{group}: {text}"), &document)
}

async fn create(session: &Session, arguments: Create, out: Output) -> Result<(), Failure> {
    let layout = match arguments.ranges {
        Some(count) => Layout::Ranges(count),
        None => Layout::Names(arguments.name),
    };
    let count = layout.count();
    let config = configured(session, MapConfig::default(), arguments.options).await?;
    let group = arguments.group;
    let zxid = PartitionMap::new(session, &group)
        .create(config, layout)
        .await?;
    let document = json!({ "group": group, "partitions": count, "zxid": zxid });
    out.print(
        &format!("{group} has a map of {count} partitions"),
        &document,
    )
}

/// A configuration with what an operator says of it.
async fn configured(
    session: &Session,
    mut config: MapConfig,
    options: Options,
) -> Result<MapConfig, Failure> {
    let millis = |seconds: f64| (seconds * 1000.0).round() as u64;
    let set = |at: &mut u32, to: Option<u32>| *at = to.unwrap_or(*at);
    let time = |at: &mut u64, to: Option<f64>| *at = to.map_or(*at, millis);
    set(&mut config.replicas, options.replicas);
    set(&mut config.moves_in_flight_max, options.moves);
    set(&mut config.member_moves_in_flight_max, options.member_moves);
    set(&mut config.balance_per_minute, options.balance_per_minute);
    set(&mut config.recovery_per_minute, options.recovery_per_minute);
    set(&mut config.approval_percent, options.approval_percent);
    time(&mut config.offline_delay_ms, options.offline_delay);
    time(&mut config.prepare_timeout_ms, options.prepare_timeout);
    time(&mut config.revoke_timeout_ms, options.revoke_timeout);
    time(&mut config.residence_ms, options.residence);
    config.readiness = options.readiness.unwrap_or(config.readiness);
    config.policy = chosen(session, config.policy, options.policy).await?;
    Ok(config)
}

/// The policy that an operator names, else the one `before`.
async fn chosen(
    session: &Session,
    before: Option<PolicyChoice>,
    said: Policy,
) -> Result<Option<PolicyChoice>, Failure> {
    let digest = match said.policy.as_deref() {
        None => before.as_ref().map(|choice| choice.digest),
        Some("none") => None,
        Some(name) => Some(plugin::find(&session.plugins().await?, name)?),
    };
    let kept = |digest: Digest| {
        let same = before.filter(|choice| choice.digest == digest);
        same.map(|choice| choice.configuration)
    };
    match (digest, said.policy_config) {
        (None, Some(_)) => Err(Failure::configuration(
            "--policy-config is of a policy: name one with --policy",
        )),
        (None, None) => Ok(None),
        (Some(digest), said) => Ok(Some(PolicyChoice {
            digest,
            configuration: said.or_else(|| kept(digest)).unwrap_or_default(),
        })),
    }
}

async fn freeze(
    map: &PartitionMap,
    of: &args::MapOrPartitions,
    frozen: bool,
    out: Output,
) -> Result<(), Failure> {
    let zxid = if of.partitions.is_empty() {
        map.freeze(frozen).await?
    } else {
        let change = PartitionChange {
            frozen: Some(frozen),
            ..PartitionChange::default()
        };
        map.change(args::partitions(&of.partitions), change).await?
    };
    let text = if frozen { "frozen" } else { "not frozen" };
    told(&of.group, text, zxid, out)
}

async fn set(session: &Session, arguments: Set, out: Output) -> Result<(), Failure> {
    let Set {
        group,
        partitions,
        weight,
        move_cost,
        allow,
        allow_all,
    } = arguments;
    let change = PartitionChange {
        weights: (!weight.is_empty()).then_some(weight),
        move_cost,
        allowed: (allow_all || !allow.is_empty()).then_some(allow),
        ..PartitionChange::default()
    };
    let partitions = args::partitions(&partitions);
    let zxid = PartitionMap::new(session, &group)
        .change(partitions, change)
        .await?;
    told(&group, "set", zxid, out)
}

async fn plan(session: &Session, group: &str, policy: Policy, out: Output) -> Result<(), Failure> {
    let map = PartitionMap::new(session, group);
    let choice = if policy.policy.is_some() || policy.policy_config.is_some() {
        chosen(session, map.view().await?.config.policy, policy).await?
    } else {
        None
    };
    let text = map.plan(choice).await?;
    let plan: Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(REFUSED, "bad-plan", format!("{error}: {text}")))?;
    if let Some(problem) = plan.get("problem").and_then(Value::as_str) {
        return Err(Failure::new(REFUSED, "no-plan", problem));
    }
    out.print(&plan_text(&plan), &plan)
}

/// A plan for people: each move with its reason, and what all cost.
fn plan_text(plan: &Value) -> String {
    let text = |of: &Value, field: &str| {
        let value = of.get(field);
        match value {
            None | Some(Value::Null) => "nobody".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(texts)) => {
                let texts = texts.iter().filter_map(Value::as_str);
                texts.collect::<Vec<_>>().join(", ")
            }
            Some(value) => value.to_string(),
        }
    };
    let moves = plan.get("moves").and_then(Value::as_array);
    let moves = moves.map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<String> = moves
        .iter()
        .map(|of| {
            let says = match text(of, "says") {
                says if says.is_empty() || says == "nobody" => String::new(),
                says => format!(": {says}"),
            };
            format!(
                "partition {} from {} to {} ({}{says})",
                text(of, "partition"),
                text(of, "from"),
                text(of, "to"),
                text(of, "reason"),
            )
        })
        .collect();
    let scores = plan.get("scores").and_then(Value::as_array);
    for score in scores.into_iter().flatten() {
        let (before, after) = (text(score, "before"), text(score, "after"));
        lines.push(format!(
            "{}: {before} now, {after} then",
            text(score, "name")
        ));
    }
    lines.push(format!(
        "{} partitions would change, at a cost of {}; {} would have fewer replicas than they should",
        moves.len(),
        text(plan, "cost"),
        text(plan, "unplaced"),
    ));
    lines.join("\n")
}

fn explanation(group: &str, explained: &Explanation) -> String {
    let Explanation {
        partition, members, ..
    } = explained;
    let mut lines = vec![format!(
        "partition {} of {group}: {}",
        partition.partition,
        key(&partition.key)
    )];
    lines.push(format!("owner     {}", owner(partition)));
    let replicas = partition.replicas.iter().map(|replica| {
        let is = match (replica.lives, replica.ready) {
            (false, _) => "gone",
            (true, true) => "ready",
            (true, false) => "catching up",
        };
        format!("{} {is}", replica.member)
    });
    lines.push(format!(
        "replicas  {}",
        replicas.collect::<Vec<_>>().join(", ")
    ));
    if let Some(movement) = &partition.movement {
        let (to, why) = (movement.target.join(", "), movement.reason.name());
        let phase = json!(movement.phase);
        let phase = phase.as_str().unwrap_or_default();
        lines.push(format!(
            "moving    to {to}: {phase}, {why}, move {}",
            movement.id
        ));
    }
    let weights: Vec<String> = partition.weights.iter().map(u64::to_string).collect();
    lines.push(format!(
        "weighs    {}, and costs {} to move",
        weights.join(","),
        partition.move_cost
    ));
    if let Some(pin) = &partition.pin {
        lines.push(format!("pinned    to {pin}"));
    }
    if !partition.allowed.is_empty() {
        lines.push(format!("allowed   {}", partition.allowed.join(", ")));
    }
    if partition.frozen {
        lines.push("frozen    the policy must leave it where it is".to_owned());
    }
    lines.extend(members.iter().map(|member| {
        let has = member
            .has
            .map_or_else(String::new, |has| format!(" ({has})"));
        match member.not.as_slice() {
            [] => format!("  {}{has} may own it", member.member),
            not => format!(
                "  {}{has} may not own it: {}",
                member.member,
                not.join("; ")
            ),
        }
    }));
    lines.join("\n")
}

fn key(key: &PartitionKey) -> String {
    match key {
        PartitionKey::Range { first, last } => format!("hashes {first:016x} to {last:016x}"),
        PartitionKey::Name(name) => format!("named {name}"),
    }
}

fn owner(partition: &PartitionView) -> String {
    let why = partition.why.name();
    match &partition.owner {
        None => "nobody yet".to_owned(),
        Some(owner) if owner.lives => {
            format!("{}, with token {}, by {why}", owner.member, owner.token)
        }
        Some(owner) => format!("nobody: {}, the last one, is gone", owner.member),
    }
}

async fn route(
    session: &Session,
    group: &str,
    keys: &[String],
    out: Output,
) -> Result<(), Failure> {
    let router = Group::new(session, group).router().await?;
    if router.layout() == Zxid::ZERO {
        let text = format!("{group} has no partition map");
        return Err(Failure::new(REFUSED, "unknown-map", text));
    }
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    for key in keys {
        let Some(route) = router.route(key) else {
            let text = format!("{group} has no partition for {key:?}");
            return Err(Failure::new(REFUSED, "unknown-partition", text));
        };
        rows.push(routed(key, &route));
        let mut document = json!(route);
        if let Some(fields) = document.as_object_mut() {
            fields.insert("routed".to_owned(), json!(key));
        }
        documents.push(document);
    }
    let headings = ["KEY", "PARTITION", "OWNER", "ADDRESS", "FOLLOWERS"];
    out.table(&headings, &rows, &documents)
}

fn routed(key: &str, route: &Route) -> Vec<String> {
    let owner = route.owner.as_ref();
    let followers: Vec<&str> = route.followers.iter().map(|of| of.id.as_str()).collect();
    vec![
        key.to_owned(),
        route.partition.to_string(),
        owner.map_or_else(|| "nobody".to_owned(), |owner| owner.id.clone()),
        owner.map_or_else(String::new, |owner| owner.address.clone()),
        followers.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_told_with_reasons_and_cost() {
        let plan = json!({
            "moves": [
                { "partition": 3, "from": "w1", "to": ["w2", "w3"], "reason": "balance", "says": "w1 has more" },
                { "partition": 4, "from": null, "to": ["w2"], "reason": "recovery", "says": "" },
            ],
            "cost": 7,
            "unplaced": 1,
            "scores": [{ "name": "spread", "before": 1.25, "after": 1.0 }],
        });
        let expected = "\
partition 3 from w1 to w2, w3 (balance: w1 has more)
partition 4 from nobody to w2 (recovery)
spread: 1.25 now, 1.0 then
2 partitions would change, at a cost of 7; 1 would have fewer replicas than they should";
        assert_eq!(plan_text(&plan), expected);
    }
}
