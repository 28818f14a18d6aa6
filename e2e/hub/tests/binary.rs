//! The binary, as a container runs it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use localmodel_hub::Control;

/// Ends the process also where a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_says_when_it_is_ready_and_ends_when_it_is_told_to() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_localmodel-hub"));
    for port in ["--hub", "--cdn", "--control"] {
        command.args([port, "127.0.0.1:0"]);
    }
    command.args(["--public-cdn", "http://hub:8081"]).stdout(Stdio::piped());
    let mut hub = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(hub.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("CDN http://hub:8081,"), "{line}");

    let control = Control::new(line.trim().rsplit(' ').next().unwrap()).unwrap();
    assert!(control.healthy().await, "{line}");
    let files = control.files("meta-llama/meta-llama-3-8b-instruct", "main").await.unwrap();
    assert!(files.contains_key("model-00004-of-00004.safetensors"), "{files:?}");

    let told = Command::new("kill").args(["-TERM", &hub.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(hub.0.wait().unwrap().success(), "SIGTERM is a wish, not an accident");
}
