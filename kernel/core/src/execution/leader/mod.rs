//! The leader's half: it admits requests, executes them once on the overlay, and proposes what they
//! did (rules R1–R5).

pub(in crate::execution) mod draft;
pub(in crate::execution) mod operations;
