//! Whatever happens to a cluster, plans are legal and settle.

#[path = "../../../sdk-guest/tests/stories/mod.rs"]
mod stories;

use folkmoot_sticky_balanced::StickyBalanced;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn plans_are_legal_and_settle(story in stories::story()) {
        stories::tell(&story, &StickyBalanced::default());
    }
}
