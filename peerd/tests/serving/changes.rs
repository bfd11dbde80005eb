//! Files and folders that change while they are served.

use super::*;
use crate::support::{
    eventually,
    peer::{Peer, by_name, get},
    within,
};
use p2pdi::v1::{GetRfcRequest, get_rfc_response::Part};
use std::{fs, os::unix::fs::FileExt as _, path::Path, time::Duration};

/// Changes a file after its first chunk arrived. Returns the original content, the received bytes, and the error that ended the stream.
async fn served_while(change: impl Fn(&Path)) -> (Vec<u8>, Vec<u8>, Status) {
    let data = support::bytes(4 << 20);
    // With a rate limit, so that the last bytes are not sent before the change.
    let peer = Peer::configured(&[("doc.bin", &data), SMALL], |config| config.upload_limit = Some(2 << 20)).await;
    let mut stream = peer.client().get_rfc(by_name("doc.bin")).await.unwrap().into_inner();
    let mut got = Vec::new();
    let ended = within("the end of the stream", async {
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    let Some(Part::Chunk(chunk)) = message.part else { continue };
                    assert_eq!(chunk.offset, got.len() as u64);
                    if got.is_empty() {
                        change(&peer.share().join("doc.bin"));
                    }
                    got.extend_from_slice(&chunk.data);
                }
                Ok(None) => panic!("it ended without an error after {} bytes", got.len()),
                Err(status) => break status,
            }
        }
    })
    .await;
    peer.assert_serves(SMALL.0, SMALL.1).await;
    (data, got, ended)
}

#[tokio::test]
async fn writing_to_a_file_ends_its_streams_before_any_changed_byte() {
    let (data, got, ended) = served_while(|path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&vec![0; 4 << 20], 0).unwrap();
    })
    .await;
    refused::<()>(Err(ended), Reason::DocumentChanged);
    assert!(got.len() < data.len() && data.starts_with(&got), "{} bytes came", got.len());
}

#[tokio::test]
async fn truncating_a_file_ends_its_streams() {
    let (data, got, ended) = served_while(|path| {
        fs::File::options().write(true).open(path).unwrap().set_len(10).unwrap();
    })
    .await;
    refused::<()>(Err(ended), Reason::DocumentChanged);
    assert!(got.len() < data.len() && data.starts_with(&got));
}

#[tokio::test]
async fn removing_or_replacing_a_file_ends_its_streams() {
    for replace in [false, true] {
        let (data, got, ended) = served_while(|path| {
            fs::remove_file(path).unwrap();
            if replace {
                fs::write(path, "new").unwrap();
            }
        })
        .await;
        refused::<()>(Err(ended), Reason::DocumentChanged);
        assert!(got.len() < data.len() && data.starts_with(&got));
    }
}

/// The bytes of a stream during which `change` happened to its file, which leaves the content as it is.
async fn served_in_spite_of(accepts_queued: bool, change: impl Fn(&Path)) {
    let data = support::bytes(4 << 20);
    let peer = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(2 << 20)).await;
    let request = GetRfcRequest { accepts_queued, ..by_name("doc.bin") };
    let mut stream = peer.client().get_rfc(request).await.unwrap().into_inner();
    let mut got = Vec::new();
    while let Some(message) = within("a message", stream.message()).await.unwrap() {
        let Some(Part::Chunk(chunk)) = message.part else { continue };
        if got.is_empty() {
            change(&peer.share().join("doc.bin"));
        }
        got.extend_from_slice(&chunk.data);
        assert_eq!(peer.handle.share().index().len(), 1, "it is in the index all the time");
    }
    assert!(got == data);
}

#[tokio::test]
async fn a_change_of_mode_or_links_ends_no_stream_and_makes_no_new_version() {
    use std::os::unix::fs::PermissionsExt as _;
    let changes: [&(dyn Fn(&Path) + Sync); 2] =
        [&|path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(), &|path| {
            fs::hard_link(path, path.parent().unwrap().with_file_name("another")).unwrap()
        }];
    for change in changes {
        served_in_spite_of(false, change).await;
    }
    let peer = Peer::sharing(&[SMALL]).await;
    let version = peer.handle.share().index().version();
    let hashed = || peer.handle.share().progress().borrow().hashed_files;
    let before = hashed();
    fs::set_permissions(peer.share().join(SMALL.0), fs::Permissions::from_mode(0o600)).unwrap();
    eventually("the file hashed again", async || (hashed() > before && peer.handle.share().status().pending == 0).then_some(()))
        .await;
    assert_eq!(peer.handle.share().index().version(), version);
    peer.assert_serves(SMALL.0, SMALL.1).await;
}

#[tokio::test]
async fn a_file_that_is_touched_is_served_on_once_it_is_hashed_again() {
    for accepts_queued in [false, true] {
        served_in_spite_of(accepts_queued, |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(86_400))).unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn a_changed_file_is_offered_again_and_never_under_its_old_hash() {
    let peer = Peer::sharing(&[("doc", b"old"), SMALL]).await;
    let mut client = peer.client();
    let old = get(&mut client, by_name("doc")).await.unwrap().0.document.unwrap().blake3;
    fs::write(peer.share().join("doc"), "newer").unwrap();
    eventually("the new content", async || match get(&mut client, by_name("doc")).await {
        Ok((header, data)) => {
            assert_eq!(header.document.unwrap().blake3 == old, data == b"old");
            (data == b"newer").then_some(())
        }
        Err(status) => {
            assert!(matches!(Reason::of(&status), Some(Reason::DocumentChanged | Reason::DocumentUnknown)), "{status:?}");
            None
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_share_is_refused_and_served_again_when_it_is_back() {
    let data = support::bytes(2 << 20);
    let peer = Peer::configured(&[("doc.bin", &data), SMALL], |config| config.upload_limit = Some(1 << 20)).await;
    let away = peer.folder.path().join("away");
    let mut client = peer.client();
    let mut stream = peer.client().get_rfc(by_name("doc.bin")).await.unwrap().into_inner();
    stream.message().await.unwrap();
    fs::rename(peer.share(), &away).unwrap();
    // An open file stays readable: the bytes are still the document's.
    let mut got = 0;
    while let Some(message) = within("a chunk", stream.message()).await.unwrap() {
        let Some(Part::Chunk(chunk)) = message.part else { panic!("not a chunk") };
        assert!(chunk.data == data[got..got + chunk.data.len()]);
        got += chunk.data.len();
    }
    assert_eq!(got, data.len());
    // A new request finds no file.
    let status = get(&mut client, by_name(SMALL.0)).await.unwrap_err();
    assert!(
        matches!(Reason::of(&status), Some(Reason::DocumentChanged | Reason::DocumentUnknown | Reason::DocumentUnreadable)),
        "{status:?}"
    );
    eventually("the empty index", async || {
        (peer.handle.share().index().is_empty() && !peer.handle.share().status().detail.is_empty()).then_some(())
    })
    .await;
    refused(get(&mut client, by_name(SMALL.0)).await, Reason::DocumentUnknown);
    fs::rename(&away, peer.share()).unwrap();
    eventually("the share to be back", async || get(&mut client, by_name(SMALL.0)).await.ok()).await;
    peer.assert_serves(SMALL.0, SMALL.1).await;
    tokio::time::timeout(Duration::from_secs(60), peer.stop()).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_still_reads_its_share_does_not_say_that_a_document_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let share = folder.path().join("share");
    fs::create_dir(&share).unwrap();
    // Hashed for long enough to be asked meanwhile.
    fs::write(share.join("large.bin"), support::bytes(64 << 20)).unwrap();
    let peer = Peer::start(support::peer::config("sharer", &folder), folder).await;
    let mut refusals = 0;
    let (header, _) =
        eventually("the document to be served", async || match get(&mut peer.client(), first_byte("large.bin")).await {
            Ok(served) => Some(served),
            Err(status) => {
                let status = refused::<()>(Err(status), Reason::DocumentUnreadable);
                assert!(status.message().contains("sharer is still reading its share"), "{}", status.message());
                refusals += 1;
                None
            }
        })
        .await;
    assert_eq!((header.served_length, refusals > 0), (1, true));
    within("the share", peer.handle.share().settled()).await;
    refused(get(&mut peer.client(), by_name("missing.bin")).await, Reason::DocumentUnknown);
}

fn first_byte(name: &str) -> GetRfcRequest {
    GetRfcRequest { length: 1, ..by_name(name) }
}
