//! What awskey and awspswd share: who signs, how AWS is believed and asked,
//! and what its refusals mean.
//!
//! A [`Session`] has two clients. What only reads goes through one that asks
//! again where AWS is busy; what changes goes through one that sends once. A
//! change that is sent again after its answer was lost is refused for what the
//! first sending did.

mod place;
mod refusal;
mod session;
mod signer;
mod web;

pub use aws_sdk_iam as iam;
pub use place::Place;
pub use refusal::{Asked, Refusal};
pub use session::{Caller, Session};
pub use signer::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, Signer};

/// The variables that AWS's tools read and that hold no secret: where files
/// are, and what the surroundings (a pod, a task) offer to log in with.
pub const ENVIRONMENT: &[&str] = &[
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    // `credential_process` names programs.
    "PATH",
];
