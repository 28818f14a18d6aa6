//! Tenants, nodes and servers that attack, each with its own token, on a real API server without nodes beside the
//! running operator. Each attack first shows that the victim's thing is there.

mod budgets;
mod definitions_gone;
mod deletion;
mod foreign_names;
mod labels;
mod missing_parts;
mod sources;
mod stolen_agent;
mod webhook_server;
