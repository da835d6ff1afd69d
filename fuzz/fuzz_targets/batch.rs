//! What decodes must encode to the same bytes: one meaning, one form.
#![no_main]

use folkmoot_proto::batch::Batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(batch) = Batch::decode(data) {
        assert_eq!(batch.encode(), data);
    }
});
