// A Yamux peer for the tests: one session over TCP or TLS, with @libp2p/yamux.
//
// See ../README.md for its command line and for the commands that it reads.

import './polyfill.js'

import { createInterface } from 'node:readline'

import { yamux } from '@libp2p/yamux'

import { digestOfPattern, read, readDigest, readOne, sendPattern, write } from './streams.js'
import { Wire, connect, parse } from './wire.js'

const options = parse(process.argv.slice(2))
const [mode, argument] = (options.mode ?? 'echo').split(':')

// --- Streams that come in -------------------------------------------------------------------

const held = []

const modes = {
  async echo (stream) {
    for await (const chunk of read(stream)) {
      await write(stream, chunk)
    }
    await stream.close()
  },
  async answer (stream) {
    const [, digest] = await readDigest(stream)
    await write(stream, Buffer.from(digest))
    await stream.close()
  },
  async hold (stream) {
    stream.pause()
    await new Promise((resolve) => held.push(resolve))
    const answered = modes.answer(stream)
    stream.resume()
    await answered
  },
  async source (stream) {
    await Promise.all([sendPattern(stream, Number(argument)), readDigest(stream)])
  },
  async reset (stream) {
    await readOne(stream)
    stream.abort(new Error('reset'))
  }
}

function accept ({ detail: stream }) {
  modes[mode](stream).then(
    () => console.log('seen done'),
    (error) => console.log('seen error', error.message)
  )
}

// --- Commands -------------------------------------------------------------------------------

async function echoOnce (size) {
  const stream = await muxer.createStream()
  const [[, digest]] = await Promise.all([readDigest(stream), sendPattern(stream, size)])
  if (digest !== digestOfPattern(size)) {
    throw new Error('the echo differs')
  }
}

const commands = {
  // Opens `count` streams, at most `parallel` at a time, and wants on each what it sent.
  async echo (count, size, parallel) {
    const worker = async () => {
      while (count-- > 0) {
        await echoOnce(size)
      }
    }
    await Promise.all(Array.from({ length: parallel }, worker))
  },
  // Sends, says that this was all, and then reads the answer.
  async ask (size) {
    const stream = await muxer.createStream()
    const [[length, digest]] = await Promise.all([readDigest(stream), sendPattern(stream, size)])
    return `${length} ${digest}`
  },
  // Waits for a byte, so that the stream is known, and resets it.
  async reset () {
    const stream = await muxer.createStream()
    await write(stream, Buffer.from('?'))
    await readOne(stream)
    stream.abort(new Error('reset'))
  },
  // Says how a stream ended.
  async wait () {
    const stream = await muxer.createStream()
    await write(stream, Buffer.from('?'))
    return readDigest(stream).then(() => 'end', () => 'reset')
  },
  async unused () {
    await muxer.createStream()
  },
  async release () {
    held.forEach((resolve) => resolve())
  },
  async ping () {
    await muxer.ping()
  },
  async close () {
    await end()
  },
  async fail () {
    await end({ reason: 7 })
  }
}

async function end (options) {
  await muxer.close(options)
  await wire.close()
}

async function obey (line) {
  const [command, ...words] = line.split(' ')
  try {
    console.log('ok', (await commands[command](...words.map(Number))) ?? '')
  } catch (error) {
    console.log('failed', error.message)
  }
}

const wire = new Wire(await connect(options), options.listen ? 'inbound' : 'outbound')
const muxer = yamux()().createStreamMuxer(wire)
muxer.addEventListener('stream', accept)
wire.addEventListener('close', () => console.log('seen end'))
for await (const line of createInterface({ input: process.stdin })) {
  await obey(line)
}
process.exit()
