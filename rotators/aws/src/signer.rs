use aws_config::BehaviorVersion;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_iam::config::Region;
use turnlock_kit::protocol::field;
use turnlock_kit::{Admin, Credential, Fault, Kind, Secret};

use crate::place::Place;
use crate::web::Web;

/// The credential's fields.
pub const ACCESS_KEY_ID: &str = "access_key_id";
/// See [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "secret_access_key";
/// Of credentials that end by themselves.
pub const SESSION_TOKEN: &str = "session_token";

const HINT: &str = "name an admin record with turnlock:admin or a profile with cmdr:aws_profile, or give the record the \
                    user's own cmdr:aws_key_id and cmdr:aws_key_secret";

/// Who signs what is asked of AWS.
#[derive(Debug)]
pub enum Signer<'a> {
    /// An access key.
    Key {
        /// Its id.
        id: &'a Secret,
        /// Its secret.
        secret: &'a Secret,
        /// With credentials that end by themselves.
        token: Option<&'a Secret>,
        /// Whose it is.
        of: &'a str,
    },
    /// A profile of the shared files.
    Profile(&'a str),
    /// What the surroundings offer: variables, a pod's or a task's role, a machine's.
    Surroundings,
}

impl<'a> Signer<'a> {
    /// The admin's key where there is one, else the account's profile, else
    /// the user's own key, else what the surroundings offer.
    ///
    /// # Errors
    /// `invalid_input` when the admin has no key.
    pub fn choose(
        place: &'a Place,
        login: &'a str,
        own: &'a Credential,
        admin: Option<&'a Admin>,
    ) -> Result<Self, Fault> {
        if let Some(admin) = admin {
            return Self::of_admin(admin);
        }
        match &place.aws_profile {
            Some(profile) => Ok(Self::Profile(profile)),
            None => Ok(Self::key(own, login).unwrap_or(Self::Surroundings)),
        }
    }

    /// This very key.
    pub fn key(credential: &'a Credential, of: &'a str) -> Option<Self> {
        let (id, secret) = (credential.get(ACCESS_KEY_ID)?, credential.get(SECRET_ACCESS_KEY)?);
        Some(Self::Key { id, secret, token: credential.get(SESSION_TOKEN), of })
    }

    /// The secret may be the password of the admin's record.
    fn of_admin(admin: &'a Admin) -> Result<Self, Fault> {
        let credential = &admin.credential;
        let secret = credential.get(SECRET_ACCESS_KEY).or_else(|| credential.get(field::PASSWORD));
        match credential.get(ACCESS_KEY_ID).zip(secret) {
            Some((id, secret)) => Ok(Self::Key { id, secret, token: credential.get(SESSION_TOKEN), of: &admin.login }),
            None => Err(Fault::new(Kind::InvalidInput, format!("the admin \"{}\" has no access key", admin.login))
                .hint(
                    "give the admin's record cmdr:aws_key_id, and cmdr:aws_key_secret or the secret as its password",
                )),
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Key { id, of, .. } => {
                #[expect(clippy::disallowed_methods, reason = "the id of an access key is no secret")]
                let id = id.expose();
                format!("the access key {id} of \"{of}\"")
            }
            Self::Profile(profile) => format!("the profile \"{profile}\""),
            Self::Surroundings => "what this machine's surroundings offer".to_owned(),
        }
    }

    /// The region to ask in: the account's, the environment's, the profile's.
    pub(crate) async fn region(&self, place: &Place, web: &Web) -> Region {
        if let Some(region) = &place.region {
            return Region::new(region.clone());
        }
        if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
            return region;
        }
        let builder = ProfileFileRegionProvider::builder().configure(&config(web, None));
        let builder = match self {
            Self::Profile(profile) => builder.profile_name(*profile),
            Self::Key { .. } | Self::Surroundings => builder,
        };
        builder.build().region().await.unwrap_or_else(|| Region::from_static("us-east-1"))
    }

    /// What to sign with.
    ///
    /// # Errors
    /// `authentication` when there is nothing.
    pub(crate) async fn credentials(&self, web: &Web, region: &Region) -> Result<Credentials, Fault> {
        match self {
            Self::Key { id, secret, token, .. } => {
                #[expect(clippy::disallowed_methods, reason = "the SDK signs with it and keeps it zeroized")]
                let of = |secret: &Secret| secret.expose().to_owned();
                Ok(Credentials::new(of(id), of(secret), token.map(of), None, "turnlock"))
            }
            Self::Profile(profile) => ProfileFileCredentialsProvider::builder()
                .configure(&config(web, Some(region)))
                .profile_name(*profile)
                .build()
                .provide_credentials()
                .await
                .map_err(|error| {
                    missing(&error, format!("the profile \"{profile}\" gives no credentials")).hint(format!(
                        "try `aws sts get-caller-identity --profile {profile}`; for a profile of IAM Identity Center, \
                         name one with credential_process = aws configure export-credentials --profile {profile} \
                         --format process"
                    ))
                }),
            Self::Surroundings => DefaultCredentialsChain::builder()
                .configure(config(web, Some(region)))
                .region(region.clone())
                .build()
                .await
                .provide_credentials()
                .await
                .map_err(|error| missing(&error, "nobody is named who may manage the user".to_owned()).hint(HINT)),
        }
    }
}

fn config(web: &Web, region: Option<&Region>) -> ProviderConfig {
    ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(web.clone())
        .with_region(region.cloned())
}

/// No credentials. What a `credential_process` wrote to standard error may
/// hold anything and is told to nobody.
fn missing(error: &CredentialsError, message: String) -> Fault {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            Fault::new(Kind::Authentication, message).caused_by(error)
        }
        CredentialsError::ProviderTimedOut(_) => Fault::new(Kind::Timeout, format!("{message}: it took too long")),
        _ => Fault::new(Kind::Authentication, format!("{message}: whoever should provide them failed")),
    }
}
