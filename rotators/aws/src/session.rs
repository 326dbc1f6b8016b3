use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_iam::config::retry::RetryConfig;
use aws_sdk_iam::config::{BehaviorVersion, Region, StalledStreamProtectionConfig};
use aws_sdk_iam::primitives::DateTime;
use turnlock_kit::{Fault, Kind};

use crate::place::Place;
use crate::refusal::{Asked, Refusal};
use crate::signer::Signer;
use crate::web::Web;

/// How often something that changes nothing is asked.
const TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// AWS refuses what was signed a quarter of an hour ago or later.
const MOST_CLOCK_SKEW_S: i64 = 5 * 60;

/// Two clients for one signer, and what they have in common.
#[derive(Debug)]
pub struct Session {
    /// Asks, again where AWS is busy.
    pub ask: aws_sdk_iam::Client,
    /// Changes: every request is sent once.
    pub change: aws_sdk_iam::Client,
    /// Who signs, for people.
    pub signer: String,
    /// The id of the access key that signs.
    pub key_id: String,
    sts: aws_sdk_sts::Client,
    web: Web,
}

/// Whom AWS takes the signer for.
#[derive(Debug)]
pub struct Caller {
    /// Its ARN.
    pub arn: String,
    /// Its account.
    pub account: String,
}

impl Caller {
    /// The name of the IAM user, if it is one.
    pub fn user(&self) -> Option<&str> {
        let (_, path) = self.arn.split_once(":user/")?;
        path.rsplit('/').next()
    }
}

impl Session {
    /// Finds what to sign with, and assumes the account's role where it names one.
    ///
    /// # Errors
    /// `authentication` and `permission` of the signer or the role.
    pub async fn open(place: &Place, signer: &Signer<'_>) -> Result<Self, Fault> {
        let session = Self::without_role(place, signer).await?;
        match &place.aws_assume_role {
            Some(role) => session.assuming(place, role).await,
            None => Ok(session),
        }
    }

    /// The same, for a key that shall prove itself.
    ///
    /// # Errors
    /// `tls` and `invalid_input` of the account.
    pub async fn without_role(place: &Place, signer: &Signer<'_>) -> Result<Self, Fault> {
        let web = Web::open(place)?;
        let region = signer.region(place, &web).await;
        let credentials = signer.credentials(&web, &region).await?;
        Ok(Self::of(place, web, region, credentials, signer.name()))
    }

    fn of(place: &Place, web: Web, region: Region, credentials: Credentials, signer: String) -> Self {
        let key_id = credentials.access_key_id().to_owned();
        let iam = |retry| {
            let mut config = aws_sdk_iam::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(credentials.clone())
                .region(region.clone())
                .http_client(web.clone())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                .retry_config(retry);
            config.set_endpoint_url(place.endpoint.clone());
            aws_sdk_iam::Client::from_conf(config.build())
        };
        let patient = || RetryConfig::standard().with_max_attempts(TRIES).with_initial_backoff(FIRST_PAUSE);
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(credentials.clone())
            .region(region.clone())
            .http_client(web.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_config(patient());
        config.set_endpoint_url(place.endpoint.clone());
        let sts = aws_sdk_sts::Client::from_conf(config.build());
        Self { ask: iam(patient()), change: iam(RetryConfig::disabled()), signer, key_id, sts, web }
    }

    async fn assuming(self, place: &Place, role: &str) -> Result<Self, Fault> {
        let name = place.aws_session_name.as_deref().unwrap_or("turnlock");
        let assumed = self
            .sts
            .assume_role()
            .role_arn(role)
            .role_session_name(name)
            .set_external_id(place.aws_external_id.clone())
            .send()
            .await
            .map_err(|error| {
                let fault = self.refusal(Asked::new("sts:AssumeRole", format!("the role {role}")), error).fault;
                let external = if place.aws_external_id.is_some() { "" } else { ", or it asks for an aws_external_id" };
                match fault.kind {
                    Kind::Permission => {
                        fault.hint(format!("the role's trust policy has to name who assumes it{external}"))
                    }
                    _ => fault,
                }
            })?;
        let credentials = assumed.credentials().ok_or_else(|| {
            Fault::new(Kind::Unsupported, format!("{} gave no credentials for the role {role}", self.web.name))
        })?;
        let credentials = Credentials::new(
            credentials.access_key_id(),
            credentials.secret_access_key(),
            Some(credentials.session_token().to_owned()),
            None,
            "turnlock",
        );
        let region = self.sts.config().region().cloned().unwrap_or_else(|| Region::from_static("us-east-1"));
        let signer = format!("{} as the role {role}", self.signer);
        Ok(Self::of(place, self.web, region, credentials, signer))
    }

    /// Whom AWS takes the signer for. Every valid signature may ask that.
    ///
    /// # Errors
    /// AWS's refusal, or why it could not be asked.
    pub async fn caller(&self) -> Result<Caller, Refusal> {
        let asked = || Asked::new("sts:GetCallerIdentity", "itself".to_owned());
        let identity = self.sts.get_caller_identity().send().await.map_err(|error| self.refusal(asked(), error))?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Ok(Caller { arn: text(identity.arn()), account: text(identity.account()) })
    }

    /// The time, by AWS's clock.
    pub fn now(&self) -> i64 {
        DateTime::from(SystemTime::now()).secs() + self.web.ahead()
    }

    /// By how much this machine's clock is wrong, where that is too much.
    pub fn clock_is_wrong_by(&self) -> Option<Duration> {
        let skew = self.web.ahead().unsigned_abs();
        (skew > MOST_CLOCK_SKEW_S.unsigned_abs()).then(|| Duration::from_secs(skew))
    }

    /// Where AWS is asked, for people.
    pub fn server(&self) -> &str {
        &self.web.name
    }

    /// How far it is believed, for people.
    pub fn believed(&self) -> &'static str {
        self.web.believed
    }
}
