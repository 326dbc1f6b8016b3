//! `cargo xtask lab`: a server of the lab for a person to look at.

use std::path::Path;

use lab::{
    ADMIN, AccessKey, Aws, DomainController, DomainOptions, LabError, Login, MysqlOptions, MysqlServer, Openldap,
    OpenldapOptions, OracleOptions, OracleServer, Postgresql, PostgresqlOptions, Result, SmbOptions, SmbServer,
    UnixHost, UnixHostOptions, mariadb, mysql,
};

use crate::{
    say::{line, step},
    setup::{self, Need},
};

/// Starts one server and waits for Ctrl-C, which the server's guard sees, too.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["postgresql"] => {
            setup::ensure(&[Need::Postgresql])?;
            let server = step("start PostgreSQL", || Postgresql::start(PostgresqlOptions::default()))?;
            line(&postgresql(&server));
            wait_for_ctrl_c()
        }
        ["mariadb"] => {
            setup::ensure(&[Need::Mariadb])?;
            let server = step("start MariaDB", || mariadb::start(MysqlOptions::default()))?;
            line(&mysql_family(&server));
            wait_for_ctrl_c()
        }
        ["mysql"] => {
            setup::ensure(&[Need::Mariadb, Need::Mysql])?;
            let server = step("start MySQL", || mysql::start(MysqlOptions::default()))?;
            line(&mysql_family(&server));
            wait_for_ctrl_c()
        }
        ["ssh"] => {
            setup::ensure(&[Need::UnixHosts])?;
            let host = step("start a host with sshd", || UnixHost::start(UnixHostOptions::default()))?;
            host.create_user("app", ADMIN.password)?;
            line(&format!(
                "ssh -p {} app@{}\npassword: {}\nhost key: {}\nCtrl-C ends it.",
                host.port(),
                host.host(),
                ADMIN.password,
                host.fingerprint()?
            ));
            wait_for_ctrl_c()
        }
        ["openldap"] => {
            setup::ensure(&[Need::Openldap])?;
            let server = step("start OpenLDAP", || Openldap::start(OpenldapOptions::default()))?;
            let url = format!("ldaps://{}:{}", server.host(), server.port());
            line(&directory(&url, server.admin(), &server.ca_path(), "dc=lab,dc=test"));
            wait_for_ctrl_c()
        }
        ["oracle"] => {
            setup::ensure(&[Need::PythonClients])?;
            let server = step("start a stand-in for Oracle", || OracleServer::start(OracleOptions::default()))?;
            server.create_user("APP", ADMIN.password)?;
            server.create_admin("BOSS", ADMIN.password)?;
            line(&oracle(&server));
            wait_for_ctrl_c()
        }
        ["moto"] => {
            setup::ensure(&[Need::PythonClients])?;
            let server = step("start moto", || Aws::start(&["localhost", "127.0.0.1"]))?;
            server.create_user("app", Some(ADMIN.password))?;
            server.allow("app", &["iam:*", "sts:*"])?;
            line(&iam(&server, &server.create_key("app", None)?));
            wait_for_ctrl_c()
        }
        ["samba"] => {
            setup::ensure(&[Need::Samba])?;
            let controller = step("start a domain controller", || DomainController::start(DomainOptions::default()))?;
            let admin = Login { login: "administrator@lab.test", ..controller.admin() };
            line(&directory(&format!("ldaps://{}", controller.host()), admin, &controller.ca_path(), "dc=lab,dc=test"));
            wait_for_ctrl_c()
        }
        ["smb"] => {
            setup::ensure(&[Need::UnixHosts, Need::Samba])?;
            let server = step("start smbd", || SmbServer::start(SmbOptions::default()))?;
            let admin = server.admin();
            line(&format!(
                "smbclient //{}/IPC$ -U {}\npassword: {}\nlog: {}\nCtrl-C ends it.",
                server.host(),
                admin.login,
                admin.password,
                server.place().join("server.log").display()
            ));
            wait_for_ctrl_c()
        }
        _ => Err(LabError::new(
            "say which server: cargo xtask lab postgresql | mariadb | mysql | ssh | openldap | moto | oracle | samba | smb",
        )),
    }
}

fn iam(server: &Aws, key: &AccessKey) -> String {
    format!(
        "AWS_CA_BUNDLE={} AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={} aws --endpoint-url https://127.0.0.1:{} iam \
         list-access-keys\nuser: app, console password: {}\nCtrl-C ends it.",
        server.ca_path().display(),
        key.id,
        key.secret,
        server.port(),
        ADMIN.password
    )
}

fn directory(url: &str, admin: Login, ca: &Path, base: &str) -> String {
    format!(
        "LDAPTLS_CACERT={} ldapsearch -x -H {url} -D '{}' -w {} -b {base}\nlog: {}\nCtrl-C ends it.",
        ca.display(),
        admin.login,
        admin.password,
        ca.with_file_name("server.log").display()
    )
}

fn postgresql(server: &Postgresql) -> String {
    let (admin, ca) = (server.admin(), server.ca_path());
    format!(
        "PGPASSWORD={} psql 'host={} port={} user={} dbname=postgres sslmode=verify-full sslrootcert={}'\nlog: {}\nCtrl-C ends it.",
        admin.password,
        server.host(),
        server.port(),
        admin.login,
        ca.display(),
        ca.with_file_name("server.log").display()
    )
}

fn oracle(server: &OracleServer) -> String {
    let (host, service, ca) = (server.host(), OracleServer::SERVICE, server.ca_path());
    format!(
        "connect string: {host}:{}/{service} or tcps://{host}:{}/{service}\nauthority: {}\n\
         users: app, boss (ALTER USER)\npassword: {}\nlog: {}\nCtrl-C ends it.",
        server.port(),
        server.secure_port(),
        ca.display(),
        ADMIN.password,
        ca.with_file_name("server.log").display()
    )
}

fn mysql_family(server: &MysqlServer) -> String {
    let (admin, ca) = (server.admin(), server.ca_path());
    format!(
        "MYSQL_PWD={} mariadb --protocol=tcp --host={} --port={} --user={} --ssl-ca={} --ssl-verify-server-cert\nlog: {}\nCtrl-C ends it.",
        admin.password,
        server.host(),
        server.port(),
        admin.login,
        ca.display(),
        ca.with_file_name("server.log").display()
    )
}

fn wait_for_ctrl_c() -> ! {
    loop {
        std::thread::park();
    }
}
