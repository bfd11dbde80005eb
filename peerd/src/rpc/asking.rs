//! A question to the mesh for a client that is no peer of it.

use super::services::Services;
use crate::{documents::selector::DocumentSelector, holders::rfc_query::Listed};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    server::Caller,
    v1::{Holder, Holding, RfcQueryRequest},
};
use std::{sync::Arc, time::Duration};

/// Age of what a holder said a moment ago: an age of zero is that of the answering peer's own documents.
const AGE: Duration = Duration::from_millis(1);

/// Who in the mesh holds the one document that `request` is about. `None`: nobody was asked, since it is about others, too, the caller may not
/// have it asked, or as many were asked for others as this peer asks.
pub(super) async fn ask_mesh(
    services: &Arc<Services>,
    request: &RfcQueryRequest,
    caller: Option<&Caller>,
) -> Option<Vec<Holding>> {
    let wanted = only_one(request)?;
    if !services.is_certified(caller) {
        return None;
    }
    // Who may control this peer can have it broadcast anyway.
    let stranger = caller.filter(|_| services.check_control(caller).is_err());
    let answers = services.network.ask_for(stranger.map(|caller| caller.address().ip()), &wanted).await?;
    let listed = answers.into_iter().flat_map(|(_, listed)| listed);
    Some(listed.filter(|listed| wanted.selects(&listed.document)).map(holding).collect())
}

fn holding(listed: Listed) -> Holding {
    let aged = |holder| Holder { age: AGE.try_into().ok(), ..holder };
    Holding { document: Some((&listed.document).into()), holders: listed.holders.into_iter().map(aged).collect() }
}

/// The document that a request is about, if it is about one number, name or hash, and about nothing else.
fn only_one(request: &RfcQueryRequest) -> Option<DocumentSelector> {
    let RfcQueryRequest { number, name, blake3, .. } = request.clone();
    let plain = RfcQueryRequest { number, name, blake3, ask_mesh: true, public_only: request.public_only, ..Default::default() };
    if *request != plain {
        return None;
    }
    match (request.number, request.name.as_str(), request.blake3.is_empty()) {
        (0, "", false) => ContentHash::from_field(&request.blake3).ok().map(DocumentSelector::Hash),
        (0, name, true) if !name.is_empty() => DocumentName::parse(name).ok().map(DocumentSelector::Name),
        (number, "", true) if number > 0 => Some(DocumentSelector::Number(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_about_one_document_is_asked() {
        let ask = |request: RfcQueryRequest| only_one(&RfcQueryRequest { ask_mesh: true, ..request });
        let name = || "a.txt".to_owned();
        assert_eq!(ask(RfcQueryRequest { number: 48, ..Default::default() }), Some(DocumentSelector::Number(48)));
        assert!(matches!(ask(RfcQueryRequest { name: name(), ..Default::default() }), Some(DocumentSelector::Name(_))));
        let hash = ContentHash::of(b"x");
        assert_eq!(ask(RfcQueryRequest { blake3: hash.to_field(), ..Default::default() }), Some(DocumentSelector::Hash(hash)));
        for other in [
            RfcQueryRequest::default(),
            RfcQueryRequest { own_only: true, name: name(), ..Default::default() },
            RfcQueryRequest { pattern: "*".into(), name: name(), ..Default::default() },
            RfcQueryRequest { words: "x".into(), ..Default::default() },
            RfcQueryRequest { number: 48, name: name(), ..Default::default() },
            RfcQueryRequest { blake3: vec![1].into(), ..Default::default() },
        ] {
            assert_eq!(ask(other.clone()), None, "{other:?}");
        }
    }
}
