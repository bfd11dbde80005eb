//! Documents that the peer shares or has learned of, for the page.

use super::{
    Page, caller,
    fields::Fields,
    messages::{as_json, refused},
};
use crate::documents::catalog::{self, Filter};
use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use p2pdi::v1::RfcQueryRequest;
use serde_json::{Value, json};
use std::time::Instant;
use tonic::Status;

/// Documents in one answer: what a person looks through; past it they search.
const DOCUMENTS_MAX: usize = 100;
/// Holders named for one of them.
const HOLDERS_MAX: usize = 3;

/// `?find=…`: an RFC number (`48`, `rfc48`), or words of the title.
pub(super) async fn find(State(page): State<Page>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let found = async {
        caller::may_see(&page.services, &parts)?;
        let fields = Fields::read(&parts, body, &["find"]).await?;
        documents(&page, fields.get("find").unwrap_or_default())
    };
    match found.await {
        Ok(found) => as_json(StatusCode::OK, &found),
        Err(status) => refused(&status, &parts.headers),
    }
}

fn documents(page: &Page, find: &str) -> Result<Value, Status> {
    let find = find.trim();
    let digits = find.get(..3).filter(|rfc| rfc.eq_ignore_ascii_case("rfc")).map_or(find, |_| find[3..].trim_start());
    let number = digits.parse().unwrap_or(0);
    let title = if number == 0 { find.to_owned() } else { String::new() };
    let limit = u32::try_from(DOCUMENTS_MAX + 1).unwrap_or(u32::MAX);
    let filter = Filter::try_from(&RfcQueryRequest { number, title, limit, ..Default::default() })?;
    let services = &page.services;
    let holdings = catalog::answer(&services.catalog, &services.me, &filter, 0, Instant::now()).flat_map(|batch| batch.holdings);
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
    // Those with a number first, in its order; the others stay by name.
    documents.sort_by_key(|document| document["number"].as_u64().filter(|number| *number > 0).unwrap_or(u64::MAX));
    Ok(json!({ "documents": documents, "more": more }))
}
