//! Search in the documents that the peer shares or knows of, for the page.

use super::{
    caller,
    state::{FORM_MAX_BYTES, HttpState},
};
use crate::{
    documents::{
        catalog::{self, Filter},
        restrictions::Audience,
    },
    rpc::Services,
};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use p2pdi::{
    server::{Fields, as_json, refused},
    v1::RfcQueryRequest,
};
use serde_json::{Value, json};
use std::time::Instant;
use tonic::Status;

/// Most documents in one answer: what a person looks through before refining the search.
const DOCUMENTS_MAX: usize = 100;
/// Most holders named for one document.
const HOLDERS_MAX: usize = 3;

/// `?find=…`: an RFC number (`48`, `rfc48`), or words of the title.
pub(super) async fn find(State(state): State<HttpState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let found = async {
        caller::may_see(&state, &parts)?;
        let fields = Fields::read(&parts, body, &["find"], FORM_MAX_BYTES).await?;
        documents(&state.services, fields.get("find").unwrap_or_default())
    };
    match found.await {
        Ok(found) => as_json(StatusCode::OK, &found),
        Err(status) => refused(&status, &parts.headers),
    }
}

fn documents(services: &Services, find: &str) -> Result<Value, Status> {
    let find = find.trim();
    let digits = find.get(..3).filter(|rfc| rfc.eq_ignore_ascii_case("rfc")).map_or(find, |_| find[3..].trim_start());
    let number = digits.parse().unwrap_or(0);
    let title = if number == 0 { find.to_owned() } else { String::new() };
    let limit = u32::try_from(DOCUMENTS_MAX + 1).unwrap_or(u32::MAX);
    let filter = Filter::try_from(&RfcQueryRequest { number, title, limit, ..Default::default() })?.of(Audience::owner());
    let holdings =
        catalog::answer(&services.catalog, &services.own.get(), &filter, 0, Instant::now()).flat_map(|batch| batch.holdings);
    let mut documents: Vec<_> = holdings
        .filter_map(|holding| {
            let document = holding.document?;
            let names: Vec<_> = holding.holders.iter().take(HOLDERS_MAX).map(|holder| holder.peer_name.as_str()).collect();
            Some(json!({
                "number": document.number,
                "title": document.title,
                "name": document.name,
                "size": document.size,
                "holders": names,
                "holders_in_all": holding.holders.len(),
            }))
        })
        .collect();
    let more = documents.len() > DOCUMENTS_MAX;
    documents.truncate(DOCUMENTS_MAX);
    // Documents with a number first, ordered by it; the others stay ordered by name.
    documents.sort_by_key(|document| document["number"].as_u64().filter(|number| *number > 0).unwrap_or(u64::MAX));
    Ok(json!({ "documents": documents, "more": more }))
}
