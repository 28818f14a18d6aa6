//! KServe's own local-model controller and agent, for the time of a test.
