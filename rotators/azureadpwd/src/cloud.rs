//! Where each cloud's services are (Microsoft: "Microsoft Graph national cloud
//! deployments", "Azure Resource Manager endpoints").

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::{Fault, Kind};

use crate::Account;

/// A cloud: one of them, by its short name or by the one that Azure's own tools use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Cloud {
    /// The world's.
    #[default]
    #[serde(rename = "global")]
    Global,
    /// That of the government of the United States.
    #[serde(rename = "usgov")]
    UsGov,
    /// That of 21Vianet in China.
    #[serde(rename = "china")]
    China,
    /// `global`.
    #[serde(rename = "AzureCloud")]
    GlobalByAzure,
    /// `usgov`.
    #[serde(rename = "AzureUSGovernment")]
    UsGovByAzure,
    /// `china`.
    #[serde(rename = "AzureChinaCloud")]
    ChinaByAzure,
}

/// Graph for the Department of Defense, which issues no tokens for the other one.
const DEFENSE: &str = "dod-graph.microsoft.us";

impl Cloud {
    fn hosts(self) -> [&'static str; 3] {
        match self {
            Self::Global | Self::GlobalByAzure => {
                ["login.microsoftonline.com", "graph.microsoft.com", "management.azure.com"]
            }
            Self::UsGov | Self::UsGovByAzure => {
                ["login.microsoftonline.us", "graph.microsoft.us", "management.usgovcloudapi.net"]
            }
            Self::China | Self::ChinaByAzure => {
                ["login.chinacloudapi.cn", "microsoftgraph.chinacloudapi.cn", "management.chinacloudapi.cn"]
            }
        }
    }

    /// Its short name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Global | Self::GlobalByAzure => "global",
            Self::UsGov | Self::UsGovByAzure => "usgov",
            Self::China | Self::ChinaByAzure => "china",
        }
    }
}

/// Where an account's services are asked, and what they are called in tokens.
#[derive(Debug)]
pub(crate) struct Endpoints {
    pub(crate) login: Url,
    pub(crate) graph: Url,
    #[cfg(feature = "rbac")]
    pub(crate) management: Url,
    /// Whom a client assertion is for, wherever it is sent.
    pub(crate) audience: String,
    /// Whose token Graph takes.
    pub(crate) graph_scope: String,
    /// Whose token Azure Resource Manager takes.
    #[cfg(feature = "rbac")]
    pub(crate) management_scope: String,
}

impl Endpoints {
    /// # Errors
    /// `invalid_input` for a tenant or an endpoint that cannot be one.
    pub(crate) fn of(account: &Account) -> Result<Self, Fault> {
        let tenant = tenant(&account.azure_tenant_id)?;
        let [login_host, graph_host, management_host] = account.azure_cloud.hosts();
        let login = endpoint("login_endpoint", account.login_endpoint.as_deref(), login_host)?;
        let graph = endpoint("graph_endpoint", account.graph_endpoint.as_deref(), graph_host)?;
        let management = endpoint("management_endpoint", account.management_endpoint.as_deref(), management_host)?;
        let graph_host = graph.host_str().filter(|host| *host == DEFENSE).unwrap_or(graph_host).to_owned();
        #[cfg(not(feature = "rbac"))]
        drop(management);
        Ok(Self {
            audience: format!("https://{login_host}/{tenant}/oauth2/v2.0/token"),
            graph_scope: format!("https://{graph_host}/.default"),
            #[cfg(feature = "rbac")]
            management_scope: format!("https://{management_host}/.default"),
            login: below(&login, &format!("{tenant}/oauth2/v2.0/token"))?,
            graph,
            #[cfg(feature = "rbac")]
            management,
        })
    }
}

/// A tenant's id or one of its domains, which may stand in a path as it is.
fn tenant(text: &str) -> Result<&str, Fault> {
    let text = text.trim();
    let is_tenant = !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if is_tenant && !["common", "organizations", "consumers"].contains(&text) {
        return Ok(text);
    }
    Err(Fault::new(Kind::InvalidInput, "`azure_tenant_id` does not name one tenant")
        .hint("write the directory's id, or one of its domains, into azure_tenant_id"))
}

fn endpoint(name: &str, told: Option<&str>, host: &str) -> Result<Url, Fault> {
    let told = told.map(str::trim).filter(|told| !told.is_empty());
    let text = told.map_or_else(|| format!("https://{host}"), str::to_owned);
    let wrong = |what: &str| {
        Fault::new(Kind::InvalidInput, format!("`{name}` {what}"))
            .hint(format!("write https:// and the service's host into {name}, or leave it out"))
    };
    let mut url = Url::parse(&text).map_err(|_| wrong("is no address"))?;
    if url.scheme() != "https" || url.host_str().is_none() {
        return Err(wrong("is not an https address: what is sent there is secret"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("holds more than a host, a port and a path"));
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// An address below an endpoint, with everything in it already escaped.
pub(crate) fn below(endpoint: &Url, path: &str) -> Result<Url, Fault> {
    let url = format!("{endpoint}{path}");
    let parsed = Url::parse(&url).ok();
    // An address that is read in another way than it was written leads somewhere else.
    parsed
        .filter(|parsed| parsed.as_str() == url)
        .ok_or_else(|| Fault::new(Kind::InvalidInput, "the login cannot stand in an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(tenant: &str) -> Account {
        Account { azure_tenant_id: tenant.to_owned(), ..Account::default() }
    }

    #[test]
    fn every_cloud_has_its_own_services_and_audiences() {
        for (cloud, login, graph) in [
            (Cloud::Global, "login.microsoftonline.com", "graph.microsoft.com"),
            (Cloud::UsGovByAzure, "login.microsoftonline.us", "graph.microsoft.us"),
            (Cloud::China, "login.chinacloudapi.cn", "microsoftgraph.chinacloudapi.cn"),
        ] {
            let endpoints = Endpoints::of(&Account { azure_cloud: cloud, ..account("t-1") }).unwrap();
            assert_eq!(endpoints.login.as_str(), format!("https://{login}/t-1/oauth2/v2.0/token"));
            assert_eq!(endpoints.audience, endpoints.login.as_str());
            assert_eq!(endpoints.graph.as_str(), format!("https://{graph}/"));
            assert_eq!(endpoints.graph_scope, format!("https://{graph}/.default"));
        }
        let defense = Account {
            azure_cloud: Cloud::UsGov,
            graph_endpoint: Some("https://dod-graph.microsoft.us".to_owned()),
            ..account("t-1")
        };
        assert_eq!(Endpoints::of(&defense).unwrap().graph_scope, "https://dod-graph.microsoft.us/.default");
    }

    #[test]
    fn another_endpoint_changes_the_way_and_not_whom_a_token_is_for() {
        let elsewhere = Account {
            login_endpoint: Some("https://gate.example.com:8443/entra".to_owned()),
            graph_endpoint: Some("https://gate.example.com/graph/".to_owned()),
            ..account("contoso.example")
        };
        let endpoints = Endpoints::of(&elsewhere).unwrap();
        assert_eq!(endpoints.login.as_str(), "https://gate.example.com:8443/entra/contoso.example/oauth2/v2.0/token");
        assert_eq!(endpoints.audience, "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token");
        assert_eq!(endpoints.graph.as_str(), "https://gate.example.com/graph/");
        assert_eq!(endpoints.graph_scope, "https://graph.microsoft.com/.default");
    }

    #[test]
    fn what_is_no_tenant_or_no_endpoint_is_refused() {
        for tenant in ["", " ", "None/..", "a/b", "..", "common", "t?x", "t#x", "%2e"] {
            assert_eq!(Endpoints::of(&account(tenant)).unwrap_err().kind, Kind::InvalidInput, "{tenant:?}");
        }
        for endpoint in
            ["http://graph.example.com", "graph.example.com", "https://user:pw@host", "https://h/?a", "ftp://h"]
        {
            let wrong = Account { graph_endpoint: Some(endpoint.to_owned()), ..account("t-1") };
            let fault = Endpoints::of(&wrong).unwrap_err();
            assert!(fault.message.contains("graph_endpoint") && !fault.message.contains("pw"), "{endpoint}: {fault:?}");
        }
    }
}
