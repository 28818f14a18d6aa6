//! The `localmodel` command.
fn main() {}
