"""Configurations: TOML text to frozen values and back, with every fault named. No I/O."""

from tunnel.config.client import ClientConfig, ProxyConfig, VisitorConfig
from tunnel.config.load import Loaded, detect, load_client, load_server
from tunnel.config.locate import locate
from tunnel.config.report import Report
from tunnel.config.schema import Kind
from tunnel.config.server import IdentityConfig, RateLimit, ServerConfig
from tunnel.config.template import client_template, dump, server_template
from tunnel.config.values import PLACEHOLDER_KEY

__all__ = [
    "PLACEHOLDER_KEY",
    "ClientConfig",
    "IdentityConfig",
    "Kind",
    "Loaded",
    "ProxyConfig",
    "RateLimit",
    "Report",
    "ServerConfig",
    "VisitorConfig",
    "client_template",
    "detect",
    "dump",
    "load_client",
    "load_server",
    "locate",
    "server_template",
]
