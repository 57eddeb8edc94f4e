// A minimal tunnel: TLS 1.3, hashicorp/yamux, io.Copy. It is what compiled tunnels do at least,
// and nothing else: no names, no keys, no log. Both sides are given their ports in the same order;
// a stream begins with two bytes that say which.
//
//	minimal server HOST:PORT CERT KEY PUBLISHED-PORT...
//	minimal client HOST:PORT CERT LOCAL-PORT...
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/hashicorp/yamux"
)

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2], os.Args[3], os.Args[4], os.Args[5:])
	}
	for {
		log.Print(dial(os.Args[2], os.Args[3], os.Args[4:]))
		time.Sleep(100 * time.Millisecond)
	}
}

func settings() *yamux.Config {
	config := yamux.DefaultConfig()
	config.MaxStreamWindowSize = 1 << 20
	return config
}

// serve takes one client after the other.
func serve(address, cert, key string, ports []string) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	check(err)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	listener, err := tls.Listen("tcp", address, config)
	check(err)
	host, _, err := net.SplitHostPort(address)
	check(err)
	for {
		conn, err := listener.Accept()
		check(err)
		if err := conn.(*tls.Conn).Handshake(); err != nil {
			log.Print(err)
			continue
		}
		session, err := yamux.Server(conn, settings())
		check(err)
		publish(session, host, ports)
		session.Close()
	}
}

// publish listens while the session lives.
func publish(session *yamux.Session, host string, ports []string) {
	for index, port := range ports {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			log.Print(err)
			return
		}
		defer listener.Close()
		go accept(session, listener, uint16(index))
	}
	<-session.CloseChan()
}

func accept(session *yamux.Session, listener net.Listener, index uint16) {
	for {
		visitor, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			stream, err := session.OpenStream()
			if err != nil {
				visitor.Close()
				return
			}
			stream.Write(binary.BigEndian.AppendUint16(nil, index))
			join(visitor.(*net.TCPConn), stream)
		}()
	}
}

// dial holds one session; it returns why that ended.
func dial(address, cert string, ports []string) error {
	pem, err := os.ReadFile(cert)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
	if err != nil {
		return err
	}
	session, err := yamux.Client(conn, settings())
	check(err)
	defer session.Close()
	for {
		stream, err := session.AcceptStream()
		if err != nil {
			return err
		}
		go visit(stream, ports)
	}
}

func visit(stream *yamux.Stream, ports []string) {
	var index [2]byte
	if _, err := io.ReadFull(stream, index[:]); err != nil {
		stream.Close()
		return
	}
	port := ports[binary.BigEndian.Uint16(index[:])]
	local, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		stream.Close()
		return
	}
	join(local.(*net.TCPConn), stream)
}

// join copies both ways; each direction ends by itself.
func join(conn *net.TCPConn, stream *yamux.Stream) {
	done := make(chan struct{})
	go func() {
		io.Copy(stream, conn)
		stream.Close()
		close(done)
	}()
	if _, err := io.Copy(conn, stream); err != nil {
		conn.Close() // the link is lost: the visitor must not wait
	}
	conn.CloseWrite()
	<-done
	conn.Close()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
