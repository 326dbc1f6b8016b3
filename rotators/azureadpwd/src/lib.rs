//! Resets the password of a user in Microsoft Entra ID, as an application.
//! Nobody can be asked whether a password is right: the log-in by password is
//! forbidden to users with a second factor, so a change is believed when Graph
//! says that it was made.

mod application;
mod assertion;
#[cfg(feature = "rbac")]
mod azure;
mod cloud;
mod graph;
mod password;
mod rights;
mod token;
mod web;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;
use turnlock_kit::protocol::operation::Prepared;
use turnlock_kit::tls::Tls;
use turnlock_kit::{
    Admin, Change, Credential, CredentialField, Done, Fault, Finding, Findings, Kind, Mark, PASSWORD, Policy, Rotator,
    Severity, Threshold, Traits, Verdicts, VerifyBy,
};

use application::{Application, CERTIFICATE, CLIENT_SECRET};
use cloud::{Cloud, Endpoints};
use graph::{Graph, User};
use token::Token;
use web::Service;

/// The password of a user in Entra ID.
#[derive(Debug)]
pub struct AzureAdPwd;

/// Which user, of which tenant, in which cloud.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Account {
    /// The user: user principal name, guests' with `#EXT#`, or object id.
    pub login: String,
    /// The tenant: its id, or one of its domains.
    #[schemars(extend("x-turnlock-identity" = true))]
    pub azure_tenant_id: String,
    /// `global`, `usgov` or `china`, or what Azure's own tools call them.
    #[serde(default)]
    pub azure_cloud: Cloud,
    /// How the password is set: `profile`, or `authentication-methods`, which also writes back to a domain.
    #[serde(default)]
    pub azure_reset: Reset,
    /// Where the application logs in, if not at the cloud's own address.
    #[serde(default)]
    pub login_endpoint: Option<String>,
    /// Where Graph is asked, if not at the cloud's own address.
    #[serde(default)]
    pub graph_endpoint: Option<String>,
    /// Where Azure Resource Manager is asked, if not at the cloud's own address.
    #[serde(default)]
    pub management_endpoint: Option<String>,
    /// The subscription in which `check` looks for roles that the application holds.
    #[serde(default)]
    pub azure_subscription_id: Option<String>,
    /// How these services are believed.
    #[serde(flatten)]
    pub tls: Tls,
}

/// How a password is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    /// As a property of the user.
    #[default]
    Profile,
    /// Through the user's methods of authentication. The user has to change it at the next sign-in.
    AuthenticationMethods,
}

/// How long `check` lets a busy service keep it waiting.
const PATIENCE: Duration = Duration::from_secs(20);

/// The services of an account, and the token to speak with.
struct Session {
    endpoints: Endpoints,
    login: Service,
    graph: Service,
    token: Token,
}

impl Session {
    async fn open(account: &Account, admin: Option<&Admin>, until: Instant) -> Result<Self, Fault> {
        let application = Application::of(admin)?;
        let endpoints = Endpoints::of(account)?;
        let login = Service::open(&account.tls, &endpoints.login, "Entra ID")?;
        let graph = Service::open(&account.tls, &endpoints.graph, "Microsoft Graph")?;
        let token = token::log_in(&login, &endpoints, &application, &endpoints.graph_scope, until).await?;
        Ok(Self { endpoints, login, graph, token })
    }

    fn graph<'a>(&'a self, account: &'a Account) -> Graph<'a> {
        Graph { service: &self.graph, endpoint: &self.endpoints.graph, token: &self.token, account }
    }
}

impl Rotator for AzureAdPwd {
    type Account = Account;
    const PLUGIN: &'static str = "azureadpwd";
    const SUMMARY: &'static str = "Resets the password of a user in Microsoft Entra ID.";
    const EXAMPLE_ACCOUNT: &'static str =
        r#"{"login": "app@contoso.example", "azure_tenant_id": "11111111-2222-3333-4444-555555555555"}"#;
    const CREDENTIAL: &'static [CredentialField] = &[
        PASSWORD,
        CredentialField {
            name: "login",
            option: "azure_client_id",
            mark: Mark::Admin,
            description: "The application that resets, by its client id.",
        },
        CredentialField {
            name: CLIENT_SECRET,
            option: "azure_secret",
            mark: Mark::Admin,
            description: "The value of the application's client secret.",
        },
        CredentialField {
            name: CERTIFICATE,
            option: "azure_certificate",
            mark: Mark::Admin,
            description: "Instead of a secret: the application's certificate and its private key, both PEM.",
        },
    ];
    const SHOWN: &'static [&'static str] = &["login"];

    fn traits(_: Option<&Account>) -> Traits {
        Traits {
            needs_current: false,
            verify: VerifyBy::None,
            policy_from_target: true,
            password: password::limits(),
            ..Traits::password()
        }
    }

    async fn check(account: &Account, _: &Credential, admin: Option<&Admin>) -> Result<Findings, Fault> {
        let until = Instant::now() + PATIENCE;
        let session = Session::open(account, admin, until).await?;
        let user = session.graph(account).user(until).await?;
        let mut findings = account.tls.findings();
        findings.extend(of_user(account, user.as_ref()));
        let (may_rotate, of_rights) = rights::judge(session.token.claims.as_ref(), account.azure_reset);
        findings.extend(of_rights);
        findings.extend(in_azure(account, admin, &session, until).await);
        findings.push(Finding {
            severity: Severity::Info,
            message: "the user's own password is not asked for, and a new one is not proven by a log-in".to_owned(),
        });
        let believed = session.graph.believed;
        Ok(Findings {
            server: Some(format!("Microsoft Entra ID, cloud {}", account.azure_cloud.name())),
            tls: Some(format!("TLS, {believed}")),
            // The application is logged in; the account itself was not asked.
            authenticated: false,
            may_rotate,
            findings,
        })
    }

    async fn prepare(
        _: &Account,
        _: Option<&Credential>,
        _: Option<&Admin>,
        policy: &Policy,
    ) -> Result<Prepared, Fault> {
        Ok(Prepared { policy: Some(password::narrowed(policy.clone())?), ..Prepared::default() })
    }

    async fn apply(account: &Account, change: &Change, threshold: Threshold) -> Result<Done, Fault> {
        // The rest is for the answer to the change itself.
        let until = Instant::now() + change.deadline.mul_f32(0.8);
        let next = change.next_password()?;
        password::suits(next, &account.login)?;
        let session = Session::open(account, change.admin.as_ref(), until).await?;
        let graph = session.graph(account);
        let user = graph.user(until).await?;

        let crossed = threshold.cross().await?;
        match graph.change(user.as_ref(), next, until).await {
            Ok(Duration::ZERO) => Ok(crossed.done()),
            Ok(waited) => {
                Ok(crossed.done().warning(format!("Graph was busy and made us wait for {} s", waited.as_secs())))
            }
            Err(refusal) if refusal.is_definite => Err(crossed.definitely_refused(refusal.fault)),
            Err(refusal) => Err(refusal.fault),
        }
    }

    async fn verify(account: &Account, _: &Credential, _: Option<&Admin>) -> Result<Verdicts, Fault> {
        Err(Fault::new(
            Kind::Unsupported,
            format!("Entra ID cannot be asked whether the password of \"{}\" is right", account.login),
        )
        .hint("log in with it by hand: the log-in by password alone is not for programs"))
    }
}

/// What a person should know of the user.
fn of_user(account: &Account, user: Option<&User>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |severity, message: &str| findings.push(Finding { severity, message: message.to_owned() });
    match user {
        None => find(Severity::Info, "the application may not look users up, so the login is not known to be right"),
        Some(user) => {
            if user.account_enabled == Some(false) {
                find(Severity::Warning, "the user is disabled");
            }
            if user.on_premises_sync_enabled == Some(true) {
                find(
                    Severity::Warning,
                    "the user comes from a domain: unless the tenant writes back, the password there stays as it is",
                );
            }
            if user.user_type.as_deref() == Some("Guest") {
                find(
                    Severity::Info,
                    "the user is a guest: one that logs in at its own organization has no password here",
                );
            }
        }
    }
    if account.azure_reset == Reset::AuthenticationMethods {
        find(
            Severity::Warning,
            "azure_reset = authentication-methods: the user has to change the password at the next sign-in",
        );
    }
    findings
}

#[cfg(feature = "rbac")]
async fn in_azure(account: &Account, admin: Option<&Admin>, session: &Session, until: Instant) -> Vec<Finding> {
    azure::findings(account, admin, session, until).await
}

#[cfg(not(feature = "rbac"))]
async fn in_azure(account: &Account, _: Option<&Admin>, session: &Session, _: Instant) -> Vec<Finding> {
    // Named where it is used: a log-in for Azure Resource Manager goes the same way.
    let _ = &session.login;
    let asked = account.azure_subscription_id.is_some();
    let message =
        "azure_subscription_id: this build does not look for roles in Azure (Cargo feature `rbac`)".to_owned();
    asked.then_some(Finding { severity: Severity::Info, message }).into_iter().collect()
}
