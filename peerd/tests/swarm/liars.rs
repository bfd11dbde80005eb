//! Holders that send wrong bytes, and members that say wrong things.

use super::{
    Fetcher,
    support::{
        bytes,
        document::{PIECE, Sample},
        holder::Holder,
        peer::Peer,
    },
};
use bytes::Bytes;
use p2pdi::v1::get_rfc_response::Part;

fn flipped(sample: &Sample) -> impl Future<Output = Holder> {
    Holder::tampering(sample, |_, mut messages| {
        for message in &mut messages {
            if let Some(Part::Chunk(chunk)) = &mut message.part {
                let mut data = chunk.data.to_vec();
                data[0] ^= 1;
                chunk.data = Bytes::from(data);
            }
        }
        messages
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_of_wrong_bytes_is_named_and_none_of_its_bytes_arrive_by_any_way() {
    let sample = Sample::new("doc.bin", 0, bytes((24 * PIECE) as usize));
    let liar = flipped(&sample).await;
    let honest = Peer::configured(&[("doc.bin", &sample.data)], |config| config.upload_limit = Some(4 * PIECE)).await;
    let (first, second) = (Fetcher::new().await, Fetcher::new().await);
    let sources = || vec![liar.source("liar"), honest.source("sharer")];
    let (one, other) = tokio::join!(first.fetch(sample.hash(), sources()), second.fetch(sample.hash(), sources()));
    for (fetcher, fetched) in [(&first, one.unwrap()), (&second, other.unwrap())] {
        fetcher.assert_has(&fetched, &sample.data);
        let report = fetched.sources.iter().find(|report| report.source.label() == "liar").unwrap();
        assert_eq!(report.bytes, 0);
        assert!(report.dropped.as_ref().unwrap().contains("wrong bytes in piece"), "{report:?}");
    }
}
