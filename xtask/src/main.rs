//! Folkmoot.
fn main() {}
