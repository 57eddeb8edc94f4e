// The command line, and the connection that it asks for.

import { readFileSync } from 'node:fs'
import net from 'node:net'
import tls from 'node:tls'

import { defaultLogger } from '@libp2p/logger'
import { AbstractMessageStream } from '@libp2p/utils'

const ALPN = ['tls-tunnel/1']

// `--name value` pairs; `--listen` has no value.
export function parse (words) {
  const options = {}
  for (let at = 0; at < words.length; at++) {
    const name = words[at].replace(/^-+/, '')
    options[name] = name === 'listen' ? true : words[++at]
  }
  return options
}

export function connect (options) {
  return options.listen ? accept(options) : dial(options)
}

function dial ({ connect, ca }) {
  const [host, port] = connect.split(':')
  return new Promise((resolve, reject) => {
    const socket = ca === undefined
      ? net.connect({ host, port }, () => resolve(socket))
      : tls.connect(
        { host, port, ca: readFileSync(ca), servername: 'localhost', ALPNProtocols: ALPN },
        () => resolve(socket)
      )
    socket.once('error', reject)
  })
}

function accept ({ cert, key }) {
  return new Promise((resolve, reject) => {
    const server = cert === undefined
      ? net.createServer()
      : tls.createServer({ cert: readFileSync(cert), key: readFileSync(key), ALPNProtocols: ALPN })
    server.once(cert === undefined ? 'connection' : 'secureConnection', (socket) => {
      server.close()
      resolve(socket)
    })
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => console.log(server.address().port))
  })
}

// A socket as the library wants to see it.
export class Wire extends AbstractMessageStream {
  #socket

  constructor (socket, direction) {
    super({ log: defaultLogger().forComponent('peer'), direction })
    this.#socket = socket
    socket.setNoDelay(true)
    socket.on('data', (data) => this.onData(data))
    socket.on('drain', () => this.safeDispatchEvent('drain'))
    socket.on('error', (error) => this.abort(error))
    socket.on('close', () => this.onTransportClosed())
  }

  sendData (data) {
    return { sentBytes: data.byteLength, canSendMore: this.#socket.write(data.subarray()) }
  }

  sendReset () {
    this.#socket.destroy()
  }

  sendPause () {
    this.#socket.pause()
  }

  sendResume () {
    this.#socket.resume()
  }

  async close () {
    await new Promise((resolve) => this.#socket.end(resolve))
  }
}
