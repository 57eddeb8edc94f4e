package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	hashicorp "github.com/hashicorp/yamux"
	libp2p "github.com/libp2p/go-yamux/v5"
)

func start(library string, conn net.Conn, server, resetting bool) (session, error) {
	switch library {
	case "hashicorp":
		return startHashicorp(conn, server, resetting)
	case "libp2p-go":
		return startLibp2p(conn, server)
	}
	return nil, fmt.Errorf("unknown library %s", library)
}

// --- hashicorp/yamux ------------------------------------------------------------------------

type hashicorpSession struct{ *hashicorp.Session }

type hashicorpStream struct{ *hashicorp.Stream }

func startHashicorp(conn net.Conn, server, resetting bool) (session, error) {
	config := hashicorp.DefaultConfig()
	if resetting {
		// The library resets a stream only if the other side does not end it in this time.
		config.StreamCloseTimeout = 100 * time.Millisecond
	}
	begin := hashicorp.Client
	if server {
		begin = hashicorp.Server
	}
	s, err := begin(conn, config)
	return hashicorpSession{s}, err
}

func (s hashicorpSession) Open() (stream, error) {
	opened, err := s.OpenStream()
	return hashicorpStream{opened}, err
}

func (s hashicorpSession) Accept() (stream, error) {
	accepted, err := s.AcceptStream()
	return hashicorpStream{accepted}, err
}

func (s hashicorpSession) Ping() error {
	_, err := s.Session.Ping()
	return err
}

func (s hashicorpSession) Fail() error {
	return errors.New("hashicorp/yamux has no way to end a session with a code")
}

func (s hashicorpStream) CloseWrite() error { return s.Close() }

func (s hashicorpStream) Reset() error { return s.Close() }

// --- libp2p/go-yamux ------------------------------------------------------------------------

type libp2pSession struct{ *libp2p.Session }

func startLibp2p(conn net.Conn, server bool) (session, error) {
	begin := libp2p.Client
	if server {
		begin = libp2p.Server
	}
	s, err := begin(conn, libp2p.DefaultConfig(), nil)
	return libp2pSession{s}, err
}

func (s libp2pSession) Open() (stream, error) {
	within, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	opened, err := s.OpenStream(within)
	if err != nil {
		return nil, err
	}
	return opened, nil
}

func (s libp2pSession) Accept() (stream, error) {
	accepted, err := s.AcceptStream()
	if err != nil {
		return nil, err
	}
	return accepted, nil
}

func (s libp2pSession) Ping() error {
	_, err := s.Session.Ping()
	return err
}

func (s libp2pSession) Fail() error { return s.CloseWithError(7) }
