//! The `peerd` program with few descriptors, and with few watches of folders.

use super::{
    program::{Program, alone},
    *,
};
use crate::support::{
    eventually,
    peer::{by_name, client},
};
use p2pdi::v1::{ShareStatus, StatusRequest, control_client::ControlClient};
use std::{fs, path::Path, process::Command};
use tonic::transport::{Channel, Endpoint};

/// The same command, run by a shell after `setup`.
fn after(setup: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.env_clear().args(["-c", &format!("{setup}; exec \"$0\" \"$@\"")]).arg(command.get_program()).args(command.get_args());
    shell
}

async fn share(control: &mut ControlClient<Channel>) -> ShareStatus {
    control.status(StatusRequest { left_out: true }).await.unwrap().into_inner().share.unwrap()
}

async fn control(program: &Program) -> ControlClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", program.address)).unwrap();
    ControlClient::new(endpoint.connect().await.unwrap())
}

fn sharing(folder: &Path, files: usize) {
    fs::create_dir(folder.join("share")).unwrap();
    for n in 0..files {
        fs::write(folder.join(format!("share/{n}")), vec![b'x'; 4 << 20]).unwrap();
    }
}

#[tokio::test]
async fn too_many_open_files_withdraw_nothing_and_fetches_are_told_to_come_again() {
    let folder = tempfile::tempdir().unwrap();
    sharing(folder.path(), 8);
    let program = Program::spawn(after("ulimit -n 64", &alone(folder.path())));
    let mut control = control(&program).await;
    eventually("the index", async || (share(&mut control).await.documents == 8).then_some(())).await;
    // Each stream that is not read holds an open file.
    let mut caller = client(program.address);
    let mut streams = Vec::new();
    let refusal = eventually("a refusal", async || match caller.get_rfc(by_name(&(streams.len() % 8).to_string())).await {
        Ok(stream) => {
            streams.push(stream);
            None
        }
        Err(status) => Some(status),
    })
    .await;
    assert_eq!(Reason::of(&refusal), Some(Reason::DocumentUnreadable), "{refusal:?}");
    fs::write(folder.path().join("share/new"), "new").unwrap();
    let short = eventually("a scan that fails", async || {
        let share = share(&mut control).await;
        share.problems.iter().any(|problem| problem.contains("open files")).then_some(share)
    })
    .await;
    assert_eq!((short.documents, short.detail.as_str()), (8, ""));
    drop(streams);
    eventually("the new file", async || {
        let share = share(&mut control).await;
        (share.documents == 9 && share.problems.is_empty()).then_some(())
    })
    .await;
    eventually("a fetch", async || caller.get_rfc(by_name("new")).await.ok()).await;
}

#[tokio::test]
async fn the_limit_of_watches_is_named_and_watching_begins_again_when_it_is_raised() {
    const LIMIT: &str = "/proc/sys/user/max_inotify_watches";
    let works = Command::new("unshare").args(["-Ur", "sh", "-c", &format!("echo 3 > {LIMIT}")]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user cannot set a limit of watches for one process");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    sharing(folder.path(), 1);
    for n in 0..8 {
        fs::create_dir(folder.path().join(format!("share/folder-{n}"))).unwrap();
    }
    let raise = folder.path().join("raise");
    // The loop ends with the test's folder.
    let raised = format!(
        "while [ -d {0} ] && ! [ -e {1} ]; do sleep 0.1; done; echo 1000 > {LIMIT}",
        folder.path().display(),
        raise.display()
    );
    let inner = after(&format!("echo 3 > {LIMIT}; ({raised}) >/dev/null 2>&1 & :"), &alone(folder.path()));
    let mut command = Command::new("/usr/bin/unshare");
    command.env_clear().env("PATH", "/usr/bin:/bin").arg("-Ur").arg(inner.get_program()).args(inner.get_args());
    let program = Program::spawn(command);
    let mut control = control(&program).await;
    let named = |share: &ShareStatus| share.problems.iter().any(|problem| problem.contains("fs.inotify.max_user_watches"));
    eventually("the limit in the status", async || named(&share(&mut control).await).then_some(())).await;
    fs::write(&raise, "").unwrap();
    eventually("watching again", async || share(&mut control).await.problems.is_empty().then_some(())).await;
}
