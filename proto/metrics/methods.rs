//! The names of the contract's methods.

use crate::v1::FILE_DESCRIPTOR_SET;
use prost::Message as _;

/// `PACKAGE.SERVICE/METHOD` of all methods of those services of the contract whose full names are in `services`.
pub(super) fn methods_of(services: &[&str]) -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if services.contains(&name.as_str()) {
                methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
            }
        }
    }
    methods
}
