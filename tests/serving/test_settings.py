"""Impossible settings, taken ports."""

from __future__ import annotations

import argparse
import socket
import sysconfig
import threading
import time

import pytest

from runtime.errors import InputError
from serving.arguments import add_arguments, limits_of, settings_of, words_of
from serving.settings import Settings, libpython_folder


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"http": 65536}, "http port 65536"),
        ({"queue": 0}, "a queue of 0"),
        ({"timeout": 0.0}, "every request would be refused"),
        ({"timeout": -1.0}, "timeout -1 s"),
        ({"gather": 2.0}, "gather 2 s"),
        ({"stop": 4000.0}, "stop 4000 s"),
    ],
)
def test_impossible_settings_are_refused(given, reason):
    with pytest.raises(InputError, match=reason):
        Settings(**given)


def test_free_ports_are_chosen_and_differ():
    chosen = Settings(http=0, grpc=0, metrics=0, page=0).chosen()
    ports = {chosen.http, chosen.grpc, chosen.metrics, chosen.page}
    assert len(ports) == 4 and 0 not in ports


def test_it_listens_on_this_machine_alone_unless_told_otherwise():
    assert Settings().host == "127.0.0.1"


@pytest.fixture
def taken():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held


def test_a_taken_port_is_said(taken):
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1:{port} \(.*--grpc-port"):
        Settings(http=0, grpc=port, metrics=0, page=0).chosen()


def test_a_port_that_comes_free_is_waited_for(taken):
    port = taken.getsockname()[1]
    threading.Timer(0.5, taken.close).start()
    began = time.monotonic()
    assert Settings(http=port, grpc=0, metrics=0, page=0).chosen(patience=20.0).http == port
    assert time.monotonic() - began >= 0.4


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "x" * 300])
def test_a_host_that_is_not_here_is_said(host):
    with pytest.raises(InputError, match="cannot listen on"):
        Settings(host=host, http=0, grpc=0, metrics=0, page=0).chosen()


def test_one_port_cannot_be_two_doors():
    free = Settings(http=0, grpc=0, metrics=0, page=0).chosen().http
    with pytest.raises(InputError, match="given twice"):
        Settings(http=free, grpc=free, metrics=0, page=0).chosen()


def test_options_go_through_words_unchanged():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = ["--host", "::1", "--queue", "5", "--timeout", "2.5", "--gather-ms", "0.25", "--most-mib", "1.5"]
    args = parser.parse_args(given)
    again = parser.parse_args(words_of(args))
    assert again == args
    assert settings_of(again) == Settings(host="::1", queue=5, timeout=2.5, gather=0.00025)
    assert limits_of(again).file_bytes == 3 << 19


@pytest.mark.parametrize("words", [["--most-mib", "0"], ["--most-megapixels", "1001"], ["--most-mib", "nan"]])
def test_impossible_limits_are_refused(words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError, match="--most-mib takes more than 0"):
        limits_of(parser.parse_args(words))


def test_the_shared_library_of_this_python_is_found():
    name = str(sysconfig.get_config_var("INSTSONAME"))
    if ".so" not in name:
        with pytest.raises(InputError, match="--enable-shared"):
            libpython_folder()
    else:
        assert (libpython_folder() / name).is_file()
