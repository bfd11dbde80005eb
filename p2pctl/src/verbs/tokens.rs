//! token, revoke, ca rotate: calls for operators.

use crate::{
    args::{AsOperator, CreateToken, Global, Revoke, Token, TokenWhat},
    failure::{Failure, Outcome},
    operator::Operator,
    printer::{Printer, ago, until},
};
use p2pdi::{
    endpoint::Endpoint,
    hex,
    phrases::counted,
    v1::{
        CreateTokenRequest, JoinTokenRecord, ListTokensRequest, RevokeNameRequest, RevokeTokenRequest, RotateAuthorityRequest,
        RotateAuthorityResponse,
    },
};
use registry::ca::{Authority, rotate_in_folder};
use std::{net::IpAddr, time::SystemTime};

pub(super) async fn token(global: &Global, args: Token, printer: Printer) -> Outcome {
    match args.what {
        TokenWhat::Create(args) => create(global, args, printer).await,
        TokenWhat::List(by) => list(global, &by, printer).await,
        TokenWhat::Revoke { id, as_operator } => revoke_token(global, id, &as_operator, printer).await,
    }
}

async fn create(global: &Global, args: CreateToken, printer: Printer) -> Outcome {
    let addresses = if args.addresses.is_empty() { global.registries() } else { args.addresses };
    let request = CreateTokenRequest {
        name: args.name,
        labels: args.labels.into_iter().collect(),
        ttl: Some(prost_types::Duration::try_from(args.ttl).map_err(|_| Failure::usage("--ttl is too long"))?),
        uses: args.uses,
        operator: args.operator,
        rejoin: args.rejoin,
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    let answer = match Operator::new(global, &args.as_operator, printer).await? {
        Operator::Folder(authority) => authority.answer_create_token(request, SystemTime::now())?,
        Operator::Calling(mut calling) => calling.call(async |client| client.create_token(request).await).await?,
    };
    if addresses.iter().all(is_loopback) {
        printer.note("note: the token's address is this machine only; name the one that others reach with --address HOST:PORT");
    }
    printer.message(&answer, || answer.token.clone())?;
    Ok(())
}

fn is_loopback(address: &Endpoint) -> bool {
    address.host() == "localhost" || address.host().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn list(global: &Global, by: &AsOperator, printer: Printer) -> Outcome {
    let answer = match Operator::new(global, by, printer).await? {
        Operator::Folder(authority) => authority.answer_list_tokens(),
        Operator::Calling(mut calling) => calling.call(async |client| client.list_tokens(ListTokensRequest {}).await).await?,
    };
    if printer.is_json() {
        return Ok(printer.message(&answer, String::new)?);
    }
    let now = SystemTime::now();
    let rows: Vec<_> = answer.tokens.iter().map(|token| row(token, now)).collect();
    printer.table(&["ID", "NAME", "FOR", "USED", "CREATED", "STATE", "LABELS"], &rows)?;
    Ok(())
}

fn row(token: &JoinTokenRecord, now: SystemTime) -> Vec<String> {
    let labels: Vec<_> = token.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let state = match () {
        () if token.revoked => "revoked".to_owned(),
        () if token.used >= token.uses => "used".to_owned(),
        () => until(token.expires_at, now).map_or_else(|| "expired".to_owned(), |left| format!("expires in {left}")),
    };
    vec![
        token.id.clone(),
        token.name.clone(),
        match (token.operator, token.rejoin) {
            (true, _) => "operator",
            (false, true) => "peer, rejoins",
            (false, false) => "peer",
        }
        .to_owned(),
        format!("{}/{}", token.used, token.uses),
        ago(token.created_at, now),
        state,
        labels.join(","),
    ]
}

async fn revoke_token(global: &Global, id: String, by: &AsOperator, printer: Printer) -> Outcome {
    let answer = match Operator::new(global, by, printer).await? {
        Operator::Folder(authority) => authority.answer_revoke_token(&id)?,
        Operator::Calling(mut calling) => {
            calling.call(async |client| client.revoke_token(RevokeTokenRequest { id }).await).await?
        }
    };
    printer.message(&answer, || {
        let name = answer.record.as_ref().map(|record| record.name.clone()).unwrap_or_default();
        format!("the token for {name} is revoked; those who joined with it stay (`p2pctl revoke NAME` ends them)")
    })?;
    Ok(())
}

pub(super) async fn revoke(global: &Global, args: Revoke, printer: Printer) -> Outcome {
    let Revoke { name, as_operator } = args;
    let answer = match Operator::new(global, &as_operator, printer).await? {
        Operator::Folder(authority) => authority.answer_revoke_name(&name, SystemTime::now())?,
        Operator::Calling(mut calling) => {
            let request = RevokeNameRequest { name: name.to_string() };
            calling.call(async |client| client.revoke_name(request).await).await?
        }
    };
    for token in &answer.open_tokens {
        let (id, names, left) = (&token.id, &token.name, u64::from(token.uses.saturating_sub(token.used)));
        printer.note(&format!(
            "note: {name} joined with the token {id} for {names}, which has {} left: whoever has it can join under another name; \
             `p2pctl token revoke {id}` ends it",
            counted(left, "use")
        ));
    }
    printer.message(&answer, || {
        let (certificates, tokens) = (u64::from(answer.certificates), u64::from(answer.tokens));
        format!(
            "{name} is revoked: {} and {}; every peer refuses it within a lease",
            counted(certificates, "certificate"),
            counted(tokens, "token")
        )
    })?;
    Ok(())
}

pub(super) async fn rotate(global: &Global, by: &AsOperator, printer: Printer) -> Outcome {
    if let Some(folder) = by.ca.as_deref().filter(|folder| !Authority::has_ledger(folder)) {
        // The key of registries that share their ledger: none of them can replace it.
        let sha256 = rotate_in_folder(folder, SystemTime::now())?.0.to_vec().into();
        printer.message(&RotateAuthorityResponse { sha256 }, || {
            format!("{} has a new key; give its ca-*.pem to every registry within a day", folder.display())
        })?;
        return Ok(());
    }
    let answer = match Operator::new(global, by, printer).await? {
        Operator::Folder(authority) => authority.answer_rotate(SystemTime::now())?,
        Operator::Calling(mut calling) => {
            calling.call(async |client| client.rotate_authority(RotateAuthorityRequest {}).await).await?
        }
    };
    printer.message(&answer, || {
        format!("the authority is {} from now on; the old one stays trusted for 30 days", hex::encode(&answer.sha256))
    })?;
    Ok(())
}
