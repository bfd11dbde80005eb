//! The service for operators: `p2pdi.v1.RegistryAdmin`.

use crate::enrolling::{Enrolling, no_authority, require_operator};
use p2pdi::{
    server::Caller,
    v1::{
        CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RevokeNameRequest, RevokeNameResponse,
        RevokeTokenRequest, RevokeTokenResponse, RotateAuthorityRequest, RotateAuthorityResponse,
        registry_admin_server::RegistryAdmin,
    },
};
use tonic::{Request, Response, Status};

/// The service `p2pdi.v1.RegistryAdmin`.
pub(crate) struct AdminService {
    /// `None`: the registry is no certificate authority.
    pub(crate) enrolling: Option<Enrolling>,
}

impl AdminService {
    /// The authority, if the caller is an operator.
    fn for_operator<T>(&self, request: Request<T>) -> Result<(&Enrolling, T), Status> {
        let enrolling = self.enrolling.as_ref().ok_or_else(no_authority)?;
        require_operator(Caller::of(request.extensions()))?;
        Ok((enrolling, request.into_inner()))
    }
}

#[tonic::async_trait]
impl RegistryAdmin for AdminService {
    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        let (enrolling, request) = self.for_operator(request)?;
        Ok(Response::new(enrolling.create_token(request).await?))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let (enrolling, _) = self.for_operator(request)?;
        Ok(Response::new(enrolling.list_tokens().await?))
    }

    async fn revoke_token(&self, request: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        let (enrolling, RevokeTokenRequest { id }) = self.for_operator(request)?;
        Ok(Response::new(enrolling.revoke_token(id).await?))
    }

    async fn revoke_name(&self, request: Request<RevokeNameRequest>) -> Result<Response<RevokeNameResponse>, Status> {
        let (enrolling, RevokeNameRequest { name }) = self.for_operator(request)?;
        Ok(Response::new(enrolling.revoke_name(name.parse()?).await?))
    }

    async fn rotate_authority(
        &self,
        request: Request<RotateAuthorityRequest>,
    ) -> Result<Response<RotateAuthorityResponse>, Status> {
        let (enrolling, _) = self.for_operator(request)?;
        Ok(Response::new(enrolling.rotate().await?))
    }
}
