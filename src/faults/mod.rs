//! Faults, for tests, scenarios and chaos; nothing that masters, workers and clients use.

pub mod line;
