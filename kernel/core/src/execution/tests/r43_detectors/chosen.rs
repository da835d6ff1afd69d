//! Which detectors may be chosen.

use super::*;

#[test]
fn a_choice_is_checked() {
    let mut watched = Watched::without_choice();
    let unknown = watched.choose("", "", Some(Digest([9; 32])));
    assert!(
        matches!(unknown, Err(Refusal::UnknownComponent { .. })),
        "{unknown:?}"
    );
    let lock = watched.cluster.install(&mut watched.admin, "lock");
    let rebalancer = watched.cluster.install(&mut watched.admin, "rebalancer");
    for digest in [lock, rebalancer] {
        let wrong = watched.choose("", "", Some(digest));
        assert!(
            matches!(wrong, Err(Refusal::WrongWorld { .. })),
            "{wrong:?}"
        );
    }
    let digest = Some(watched.digest);
    for group in ["a/b", "@default", &"n".repeat(129)] {
        let bad = watched.choose(group, "", digest);
        assert!(matches!(bad, Err(Refusal::BadMember { .. })), "{bad:?}");
    }
    let long = "x".repeat(POLICY_CONFIG_BYTES_MAX);
    assert_eq!(watched.choose("g", &long, digest), CHOSEN);
    let too_long = watched.choose("g", &format!("{long}x"), digest);
    assert!(
        matches!(too_long, Err(Refusal::TooLarge { .. })),
        "{too_long:?}"
    );
    assert_eq!(watched.choose("h", "", None), CHOSEN, "it had none");
    for number in 1..DETECTORS_MAX {
        assert_eq!(watched.choose(&format!("g{number}"), "", digest), CHOSEN);
    }
    let too_many = watched.choose("", "", digest);
    assert!(
        matches!(too_many, Err(Refusal::TooLarge { .. })),
        "{too_many:?}"
    );
    assert_eq!(
        watched.choose("g", "", digest),
        CHOSEN,
        "it has one already"
    );
    assert_same_state(&watched.cluster);
}

#[test]
fn a_component_that_detects_is_not_removed() {
    let mut watched = Watched::without_choice();
    let digest = watched.digest;
    assert_eq!(watched.choose("g", "", Some(digest)), CHOSEN);
    let remove = || Operation::RemoveComponent { digest };
    let used = watched.cluster.call(&mut watched.admin, remove());
    assert!(
        matches!(used, Err(Refusal::ComponentInUse { .. })),
        "{used:?}"
    );
    assert_eq!(watched.choose("g", "", None), CHOSEN);
    let removed = watched.cluster.call(&mut watched.admin, remove());
    assert_eq!(removed, Ok(Outcome::ComponentRemoved));
}
