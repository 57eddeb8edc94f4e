// The library wants this of Node 22; Node 20 does not have it.
Promise.withResolvers ??= function withResolvers () {
  const result = {}
  result.promise = new this((resolve, reject) => Object.assign(result, { resolve, reject }))
  return result
}
